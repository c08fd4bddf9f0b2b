package api

// Routes of catalogs.
const (
	RouteCatalog      = "GET /v1/catalog"
	RouteImageBundle  = "POST /v1/images/{ref}/bundle"
	RouteKernelBundle = "POST /v1/kernels/{ref}/bundle"
)

// BundleRequest asks for a bundle for a catalog.
type BundleRequest struct {
	Dir string `json:"dir"` // absolute; where the bundle appears
}
