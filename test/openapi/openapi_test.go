// Package openapi checks the daemon's OpenAPI document with a program of others. It is apart from package api because that takes long to
// compile.
package openapi

import (
	"bytes"
	"testing"

	"github.com/pb33f/libopenapi"
	"github.com/pb33f/libopenapi/datamodel"

	"banger/api"
	"banger/internal/schema"
)

// fault is what makes text no OpenAPI 3.1 document; "" when it is one.
func fault(text []byte) string {
	doc, err := libopenapi.NewDocument(text)
	if err != nil {
		return err.Error()
	}
	if v := doc.GetVersion(); v != "3.1.0" {
		return "version " + v
	}
	if _, err := doc.BuildV3Model(); err != nil {
		return err.Error()
	}
	if err := schema.Check([]byte(datamodel.OpenAPI31SchemaData), "", text); err != nil {
		return err.Error()
	}
	return ""
}

func TestDocumentIsValid(t *testing.T) {
	if text := fault(api.OpenAPI); text != "" {
		t.Error(text)
	}
	for _, broken := range [][2]string{{`"in": "path"`, `"in": "nowhere"`}, {`#/components/responses/Error`, `#/components/responses/None`}, {`"title": "banger"`, `"name": "banger"`}} {
		if fault(bytes.ReplaceAll(api.OpenAPI, []byte(broken[0]), []byte(broken[1]))) == "" {
			t.Errorf("a document with %s passes", broken[1])
		}
	}
}
