package api_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/invopop/jsonschema"

	"banger"
	"banger/api"
	"banger/internal/schema"
)

var update = flag.Bool("update", false, "write openapi.json")

// object is a JSON object.
type object map[string]any

// The document is the one that the routes and types give; a change of either needs go test ./api -update.
func TestOpenAPIIsUpToDate(t *testing.T) {
	want := document(t)
	if *update {
		if err := os.WriteFile("openapi.json", want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(api.OpenAPI, want) {
		t.Error("api/openapi.json is not what the routes and types give: go test ./api -update")
	}
}

// Each route is in the document with what it takes and gives, and the reverse.
func TestOpenAPIHasEveryRoute(t *testing.T) {
	var doc struct {
		Paths map[string]map[string]struct {
			RequestBody *struct{}       `json:"requestBody"`
			Responses   map[string]any  `json:"responses"`
			OperationID string          `json:"operationId"`
			Parameters  []api.Param     `json:"parameters"`
			Extra       json.RawMessage `json:"description"`
		}
	}
	if err := json.Unmarshal(api.OpenAPI, &doc); err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	var documented, served []string
	for path, methods := range doc.Paths {
		for method, op := range methods {
			documented = append(documented, strings.ToUpper(method)+" "+path)
			if op.OperationID == "" || ids[op.OperationID] {
				t.Errorf("%s %s: operation %q", method, path, op.OperationID)
			}
			ids[op.OperationID] = true
		}
	}
	for _, route := range api.Routes {
		served = append(served, route.Pattern)
		method, path, _ := strings.Cut(route.Pattern, " ")
		op := doc.Paths[path][strings.ToLower(method)]
		if (op.RequestBody != nil) != (route.Body != nil || route.BodyMedia != "") || op.Responses["200"] == nil || op.Responses["default"] == nil {
			t.Errorf("%s is documented as %+v", route.Pattern, op)
		}
	}
	slices.Sort(documented)
	slices.Sort(served)
	if !slices.Equal(documented, served) {
		t.Errorf("documented:\n%s\nserved:\n%s", strings.Join(documented, "\n"), strings.Join(served, "\n"))
	}
}

// document makes openapi.json.
func document(t *testing.T) []byte {
	t.Helper()
	schemas, err := schema.New("..", "#/components/schemas/", ".", "api")
	if err != nil {
		t.Fatal(err)
	}
	paths := object{}
	for _, route := range api.Routes {
		method, path, _ := strings.Cut(route.Pattern, " ")
		if paths[path] == nil {
			paths[path] = object{}
		}
		paths[path].(object)[strings.ToLower(method)] = operationObject(schemas, route)
	}
	schemas.Of(reflect.TypeFor[api.Event]())
	fault := schemas.Of(reflect.TypeFor[banger.ErrorBody]())
	doc := object{
		"openapi":           "3.1.0",
		"jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
		"info": object{
			"title":   "banger",
			"version": strconv.Itoa(api.Version),
			"license": object{"name": "MIT", "identifier": "MIT"},
			"description": "The API of bangerd, on its unix socket (run/bangerd.sock of the state directory; see \"banger daemon status\"). " +
				"Only the user whose daemon it is, and root, are answered. Durations are in nanoseconds. docs/api.md tells more.",
		},
		"servers": []any{object{"url": "http://bangerd", "description": "the host name does not matter: the connection is the unix socket"}},
		"paths":   paths,
		"components": object{
			"schemas": definitions(schemas),
			"responses": object{"Error": object{
				"description": errorText(),
				"headers":     object{api.OpIDHeader: headerRef},
				"content":     object{"application/json": object{"schema": fault}},
			}},
			"headers": object{"OperationID": object{"description": "id that stands in the daemon's log", "schema": object{"type": "string"}}},
			"parameters": object{"Version": object{"name": api.VersionHeader, "in": "header", "required": true,
				"description": "version of the API that the client speaks; a daemon of another one refuses", "schema": object{"const": strconv.Itoa(api.Version)}}},
		},
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", " ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(doc); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var headerRef = object{"$ref": "#/components/headers/OperationID"}

func definitions(schemas *schema.Set) map[string]*jsonschema.Schema {
	for name, s := range schemas.Definitions {
		if strings.Contains(name, "/") {
			panic(name)
		}
		s.Version = ""
	}
	return schemas.Definitions
}

// errorText says which status goes with which kind of error.
func errorText() string {
	kinds := map[int]string{http.StatusInternalServerError: "any other"}
	for _, kind := range []error{banger.ErrInvalid, banger.ErrNotFound, banger.ErrConflict, banger.ErrUnavailable, banger.ErrRefused, banger.ErrUnsupported} {
		kinds[api.StatusOf(kind)] = banger.KindName(kind)
	}
	var list []string
	for _, status := range slices.Sorted(maps.Keys(kinds)) {
		list = append(list, strconv.Itoa(status)+" "+kinds[status])
	}
	return "An error, by its kind: " + strings.Join(list, ", ") + "."
}

// operationObject describes one route.
func operationObject(schemas *schema.Set, route api.Route) object {
	method, path, _ := strings.Cut(route.Pattern, " ")
	op := object{"operationId": operationID(method, path), "summary": route.Summary, "tags": []string{strings.Split(path, "/")[2]}}
	params := []any{}
	if !route.AnyClient {
		params = append(params, object{"$ref": "#/components/parameters/Version"})
	}
	if strings.Contains(path, "{ref}") {
		params = append(params, object{"name": "ref", "in": "path", "required": true, "schema": object{"type": "string"}, "description": "name, id or unique beginning of an id"})
	}
	for _, p := range route.Query {
		of := object{"type": p.Type}
		if p.Type == "array" {
			of["items"] = object{"type": "string"}
		}
		params = append(params, object{"name": p.Name, "in": "query", "description": p.Summary, "schema": of, "required": p.Name == api.PathParam})
	}
	op["parameters"] = params
	switch {
	case route.Body != nil:
		op["requestBody"] = object{"content": object{"application/json": object{"schema": schemas.Of(route.Body)}}}
	case route.BodyMedia != "":
		op["requestBody"] = object{"required": true, "content": object{route.BodyMedia: object{}}}
	}
	answer := object{"headers": object{api.OpIDHeader: headerRef}}
	switch {
	case route.Events:
		text := "One event a line, as things happen; the last one has what came of it, or an error."
		if route.Operation != "" {
			text += " They are of an operation: \"" + route.Operation + "\"."
		}
		schemas.Of(route.Answer)
		answer["description"] = text
		answer["content"] = object{api.MediaEvents: object{"schema": schemas.Of(reflect.TypeFor[api.Event]())}}
		op["x-event"] = eventField(route.Answer)
	case route.Answer != nil:
		answer["description"] = "done"
		answer["content"] = object{"application/json": object{"schema": schemas.Of(route.Answer)}}
	default:
		answer["description"] = "a stream"
		answer["content"] = object{route.Media: object{}}
	}
	op["responses"] = object{"200": answer, "default": object{"$ref": "#/components/responses/Error"}}
	return op
}

// eventField is the field of an event that holds what comes of a request; that of any operation when it may be any of them.
func eventField(answer reflect.Type) string {
	for field := range reflect.TypeFor[api.Event]().Fields() {
		if field.Type == reflect.PointerTo(answer) {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			return name
		}
	}
	return "any"
}

// operationID is a name made of method and path: "postVmsStart".
func operationID(method, path string) string {
	id := strings.ToLower(method)
	for _, part := range strings.FieldsFunc(strings.TrimPrefix(path, "/v1/"), func(r rune) bool { return strings.ContainsRune("/-.", r) }) {
		if part == "{ref}" {
			part = "One"
		}
		id += strings.ToUpper(part[:1]) + part[1:]
	}
	return id
}
