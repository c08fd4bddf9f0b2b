package api

// Routes of catalogs.
const (
	RouteCatalog      = "GET /v1/catalog"               // → banger.Catalog
	RouteImageBundle  = "POST /v1/images/{ref}/bundle"  // BundleRequest → events, CatalogImage
	RouteKernelBundle = "POST /v1/kernels/{ref}/bundle" // BundleRequest → events, CatalogKernel
)

// BundleRequest asks for a bundle for a catalog.
type BundleRequest struct {
	Dir string `json:"dir"` // absolute; where the bundle appears
}
