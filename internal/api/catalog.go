package api

// Routes of catalogs.
const (
	RouteCatalog     = "GET /v1/catalog"              // → banger.Catalog
	RouteImageBundle = "POST /v1/images/{ref}/bundle" // BundleRequest → events, CatalogImage
)

// BundleRequest asks for a bundle for a catalog.
type BundleRequest struct {
	Dir string `json:"dir"` // absolute; where the bundle appears
}
