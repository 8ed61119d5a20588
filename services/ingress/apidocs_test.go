package ingress

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/service"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/services/ingress/api/docs"
)

// undocumented are the routes that are no dialect's.
var undocumented = regexp.MustCompile(`^\S+ /(metrics|health(/.*)?|docs(/.*)?)$`)

var parameter = regexp.MustCompile(`:([A-Za-z_]+)`)

// Every route of a dialect stands in a document, and there is a route for whatever stands in one.
func TestDocumentedRoutes(t *testing.T) {
	documented, err := documentedRoutes()
	if err != nil {
		t.Fatal(err)
	}
	there := routes(t)
	if len(there) < 10 {
		t.Errorf("got the routes %v: the test looks in the wrong place", there)
	}
	for _, one := range there {
		if !slices.Contains(documented, one) {
			t.Errorf("%s is a route and stands in no document", one)
		}
	}
	for _, one := range documented {
		if !slices.Contains(there, one) {
			t.Errorf("%s stands in a document and is no route", one)
		}
	}
}

// routes are those of the dialects, as method and path.
func routes(t *testing.T) (all []string) {
	t.Helper()
	server, b := bustest.Start(t, t.TempDir())
	defer server.Stop()
	i := New(DefaultConfig(), Deps{
		Deps: service.Deps{Bus: b, Dir: t.TempDir(), Log: zap.NewNop(), Metrics: prometheus.NewRegistry(), Now: time.Now}, Shards: 1,
	})
	for _, route := range i.routes().Routes() {
		one := route.Method + " " + parameter.ReplaceAllString(route.Path, "{$1}")
		if !undocumented.MatchString(one) {
			all = append(all, one)
		}
	}
	slices.Sort(all)
	return all
}

// documentedRoutes are those of the documents: each path under each server, and the aliases that it has.
func documentedRoutes() (all []string, err error) {
	for _, d := range docs.All() {
		text, err := docs.Documents.ReadFile(d.Name + ".yaml")
		if err != nil {
			return nil, err
		}
		var read struct {
			Servers []struct {
				URL string `yaml:"url"`
			} `yaml:"servers"`
			Paths map[string]map[string]any `yaml:"paths"`
		}
		if err := yaml.Unmarshal(text, &read); err != nil {
			return nil, err
		}
		for path, item := range read.Paths {
			paths := []string{path}
			aliases, _ := item["x-aliases"].([]any)
			for _, alias := range aliases {
				paths = append(paths, alias.(string))
			}
			for method := range item {
				if method == "parameters" || strings.HasPrefix(method, "x-") {
					continue
				}
				for _, server := range read.Servers {
					for _, path := range paths {
						all = append(all, strings.ToUpper(method)+" "+strings.TrimSuffix(server.URL, "/")+path)
					}
				}
			}
		}
	}
	slices.Sort(all)
	return all, nil
}
