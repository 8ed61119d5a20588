package docs_test

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/trunkline-sms/trunkline/services/ingress/api/docs"
)

// document is one as its readers see it.
type document struct {
	name    string
	content map[string]any
	schemas *jsonschema.Compiler
}

func documents(t *testing.T) (all []document) {
	t.Helper()
	for _, d := range docs.All() {
		text, err := docs.Documents.ReadFile(d.Name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		one, err := parse(d.Name, text)
		if err != nil {
			t.Fatalf("%s: %v", d.Name, err)
		}
		all = append(all, one)
	}
	return all
}

func parse(name string, text []byte) (document, error) {
	asJSON, err := yaml.YAMLToJSON(text)
	if err != nil {
		return document{}, err
	}
	content, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		return document{}, err
	}
	object, ok := content.(map[string]any)
	if !ok {
		return document{}, fmt.Errorf("got %T, want an object", content)
	}
	d := document{name: name, content: object, schemas: jsonschema.NewCompiler()}
	d.schemas.AssertFormat()
	return d, d.schemas.AddResource(name+".json", object)
}

// Every document is OpenAPI 3.1 as far as testdata/openapi.json knows it, its schemas are JSON Schemas, and its examples
// fit them.
func TestDocuments(t *testing.T) {
	for _, d := range documents(t) {
		t.Run(d.name, func(t *testing.T) {
			for _, problem := range d.problems() {
				t.Error(problem)
			}
		})
	}
}

// problems says what is wrong with a document.
func (d document) problems() (all []string) {
	for _, check := range []func() []string{d.wrongForm, d.wrongReferences, d.wrongExamples, d.wrongOperations} {
		all = append(all, check()...)
		if len(all) > 0 {
			break // those that follow would stumble
		}
	}
	return all
}

func (d document) wrongForm() []string {
	text, err := os.ReadFile("testdata/openapi.json")
	if err != nil {
		return []string{err.Error()}
	}
	form, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return []string{err.Error()}
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("openapi.json", form); err != nil {
		return []string{err.Error()}
	}
	schema, err := c.Compile("openapi.json")
	if err == nil {
		err = schema.Validate(d.content)
	}
	if err != nil {
		return []string{err.Error()}
	}
	return nil
}

// walk calls f for every object of the document, with its place as a JSON pointer.
func walk(place string, value any, f func(place string, object map[string]any)) {
	switch value := value.(type) {
	case map[string]any:
		f(place, value)
		for key, inner := range value {
			walk(place+"/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(key), inner, f)
		}
	case []any:
		for i, inner := range value {
			walk(fmt.Sprintf("%s/%d", place, i), inner, f)
		}
	}
}

// at finds what a reference names, nil if there is nothing.
func (d document) at(reference string) (value any) {
	value = d.content
	for _, key := range strings.Split(strings.TrimPrefix(reference, "#/"), "/") {
		object, _ := value.(map[string]any)
		value = object[strings.NewReplacer("~1", "/", "~0", "~").Replace(key)]
	}
	return value
}

// resolve follows a reference, if the object is one.
func (d document) resolve(value any) map[string]any {
	object, _ := value.(map[string]any)
	if reference, ok := object["$ref"].(string); ok {
		object, _ = d.at(reference).(map[string]any)
	}
	return object
}

func (d document) wrongReferences() (wrong []string) {
	used := map[string]bool{}
	walk("#", d.content, func(place string, object map[string]any) {
		if reference, ok := object["$ref"].(string); ok {
			used[reference] = true
			if d.at(reference) == nil {
				wrong = append(wrong, place+" names "+reference+", which there is not")
			}
		}
	})
	for kind, all := range d.content["components"].(map[string]any) {
		if kind == "securitySchemes" {
			continue
		}
		for name := range all.(map[string]any) {
			if reference := "#/components/" + kind + "/" + name; !used[reference] {
				wrong = append(wrong, reference+" is used nowhere")
			}
		}
	}
	return wrong
}

func (d document) wrongExamples() (wrong []string) {
	check := func(place string, schema *jsonschema.Schema, example any) {
		if err := schema.Validate(example); err != nil {
			wrong = append(wrong, fmt.Sprintf("%s does not fit its schema: %v", place, err))
		}
	}
	walk("#", d.content, func(place string, object map[string]any) {
		at := place
		if _, ok := object["schema"].(map[string]any); ok {
			at += "/schema"
		} else if !isSchema(place) {
			return
		}
		schema, err := d.schemas.Compile(d.name + ".json" + at)
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("%s is no schema: %v", at, err))
			return
		}
		if example, ok := object["example"]; ok && at != place {
			check(place+"/example", schema, example)
		}
		switch examples := object["examples"].(type) {
		case map[string]any:
			for name, one := range examples {
				check(place+"/examples/"+name, schema, one.(map[string]any)["value"])
			}
		case []any:
			for i, one := range examples {
				check(fmt.Sprintf("%s/examples/%d", place, i), schema, one)
			}
		}
	})
	return wrong
}

var schemaPlace = regexp.MustCompile(`^#/components/schemas/[^/]+(/properties/[^/]+|/items)*$`)

func isSchema(place string) bool { return schemaPlace.MatchString(place) }

var (
	methods = []string{"get", "head", "put", "post", "delete", "patch"}
	inPath  = regexp.MustCompile(`\{([^}]+)\}`)
)

func (d document) wrongOperations() (wrong []string) {
	var tags []string
	for _, tag := range d.content["tags"].([]any) {
		tags = append(tags, tag.(map[string]any)["name"].(string))
	}
	ids := map[string]bool{}
	for path, item := range d.content["paths"].(map[string]any) {
		item := item.(map[string]any)
		for _, method := range methods {
			operation, ok := item[method].(map[string]any)
			if !ok {
				continue
			}
			what := method + " " + path
			id := operation["operationId"].(string)
			if ids[id] {
				wrong = append(wrong, what+": the operationId "+id+" is another's")
			}
			ids[id] = true
			for _, tag := range operation["tags"].([]any) {
				if !slices.Contains(tags, tag.(string)) {
					wrong = append(wrong, fmt.Sprintf("%s: there is no tag %v", what, tag))
				}
			}
			wrong = append(wrong, d.wrongParameters(what, path, item, operation)...)
			wrong = append(wrong, d.wrongSecurity(what, operation)...)
			wrong = append(wrong, wrongAnswers(what, operation)...)
		}
	}
	return wrong
}

func (d document) wrongParameters(what, path string, item, operation map[string]any) (wrong []string) {
	var declared, needed []string
	for _, owner := range []map[string]any{item, operation} {
		list, _ := owner["parameters"].([]any)
		for _, one := range list {
			if p := d.resolve(one); p["in"] == "path" {
				declared = append(declared, p["name"].(string))
			}
		}
	}
	for _, match := range inPath.FindAllStringSubmatch(path, -1) {
		needed = append(needed, match[1])
	}
	slices.Sort(declared)
	slices.Sort(needed)
	if diff := cmp.Diff(needed, declared); diff != "" {
		wrong = append(wrong, what+": parameters in the path and declared ones (-path +declared):\n"+diff)
	}
	return wrong
}

func (d document) wrongSecurity(what string, operation map[string]any) (wrong []string) {
	all, ok := operation["security"].([]any)
	if !ok {
		if all, ok = d.content["security"].([]any); !ok {
			return []string{what + ": nothing says who may call it"}
		}
	}
	schemes, _ := d.at("#/components/securitySchemes").(map[string]any)
	for _, one := range all {
		for name := range one.(map[string]any) {
			if schemes[name] == nil {
				wrong = append(wrong, what+": there is no security scheme "+name)
			}
		}
	}
	return wrong
}

func wrongAnswers(what string, operation map[string]any) []string {
	for status := range operation["responses"].(map[string]any) {
		if strings.HasPrefix(status, "2") || status == "501" { // which is all that it is there for
			return nil
		}
	}
	return []string{what + ": no answer says that it worked"}
}

// The checks must see what is wrong.
func TestProblems(t *testing.T) {
	text, err := docs.Documents.ReadFile("queue.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ old, with, want string }{
		"as it is":             {"", "", ""},
		"an unknown key":       {"operationId: queue\n", "operationid: queue\n", "operationId"},
		"an unknown reference": {"responses/Queued\"", "responses/Gone\"", "which there is not"},
		"an unused component":  {"    Hash:\n", "    Spare:\n      type: string\n    Hash:\n", "is used nowhere"},
		"no schema":            {"type: integer\n", "type: number of things\n", "openapi.json"},
		"a wrong example":      {"queued: 2\n", "queued: two\n", "does not fit its schema"},
		"an example too few":   {"index: 0, hash: a1b2c3d4e5f67890, phone", "index: 0, phone", "does not fit its schema"},
		"the same operation":   {"operationId: status\n", "operationId: queue\n", "is another's"},
		"an unknown tag":       {"tags: [phones]", "tags: [telephones]", "there is no tag"},
		"another parameter":    {"/api/{token}/status:", "/api/{key}/status:", "declared ones"},
		"an unknown scheme":    {"  - bearer: []", "  - basic: []", "there is no security scheme"},
	} {
		t.Run(name, func(t *testing.T) {
			if !bytes.Contains(text, []byte(test.old)) {
				t.Fatalf("the document does not hold %q any more", test.old)
			}
			d, err := parse("queue", bytes.Replace(text, []byte(test.old), []byte(test.with), 1))
			if err != nil {
				t.Fatal(err)
			}
			got := d.problems()
			if found := strings.Join(got, "\n"); test.want == "" && found != "" || !strings.Contains(found, test.want) {
				t.Errorf("got %q, want %q", found, test.want)
			}
		})
	}
}
