package node

import (
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/pkg/service"
	"github.com/trunkline-sms/trunkline/services/dispatcher"
	"github.com/trunkline-sms/trunkline/services/ingress"
	"github.com/trunkline-sms/trunkline/services/quota"
	"github.com/trunkline-sms/trunkline/services/version"
)

// A stopped server's directory can be copied, also without its projections.
func TestCopyOfTheDataDirectory(t *testing.T) {
	simulate(t, func(t *testing.T) {
		dir, backup := t.TempDir(), filepath.Join(t.TempDir(), "backup")
		first := start(t, dir)
		token := first.Token.Reveal()
		first.queue(t, token, "secret-text-4")
		first.queue(t, token, "secret-text-5")
		first.pull(t, token, "?limit=1")
		first.stop()
		copyDir(t, dir, backup)
		if err := os.RemoveAll(filepath.Join(backup, "projections")); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}

		second := start(t, backup)
		defer second.stop()
		got, _ := second.pull(t, token, "")
		if diff := cmp.Diff([]string{"secret-text-5"}, got); diff != "" {
			t.Errorf("pull from the copy (-want +got):\n%s", diff)
		}
	})
}

// copyDir copies as cp -a does.
func copyDir(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), content, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

var (
	metricRow  = regexp.MustCompile("(?m)^\\| `(trunkline_[a-z_]+)` \\|")
	metricLine = regexp.MustCompile(`(?m)^# TYPE (trunkline_[a-z_]+) `)
	metricDesc = regexp.MustCompile(`fqName: "(trunkline_[a-z_]+)"`)
)

// TestMetricsPage compares the metrics on the page with those of a running
// server. A vector without values is not exposed, so the services are asked for
// their descriptions, too.
func TestMetricsPage(t *testing.T) {
	text, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	var exposed string
	simulate(t, func(t *testing.T) {
		s := start(t, t.TempDir())
		defer s.stop()
		s.queue(t, s.Token.Reveal(), "secret-text-6")
		// What is counted by a label is there once it was counted.
		rejected, err := s.Get(s.URL + "/api/nobody/get_messages")
		if err != nil {
			t.Fatal(err)
		}
		if err := rejected.Body.Close(); err != nil || rejected.StatusCode != http.StatusUnauthorized {
			t.Errorf("got status %d and %v, want 401", rejected.StatusCode, err)
		}
		exposed = s.metrics(t)
	})
	described := described{}
	deps := service.Deps{Bus: &bus.Bus{}, Log: zap.NewNop(), Metrics: described}
	_ = quota.New(quota.DefaultConfig(), quota.Deps{Deps: deps, Shards: 1})
	_ = dispatcher.New(dispatcher.DefaultConfig(), dispatcher.Deps{Deps: deps, Shards: 1})
	_ = version.New(version.Deps{Deps: deps})
	_ = ingress.New(ingress.DefaultConfig(), ingress.Deps{Deps: deps, Shards: 1, Listener: httpx.NewMemory()})

	want := described.names()
	for _, match := range metricLine.FindAllStringSubmatch(exposed, -1) {
		want = append(want, match[1])
	}
	var got []string
	for _, match := range metricRow.FindAllStringSubmatch(string(text), -1) {
		got = append(got, match[1])
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(slices.Compact(want), got); diff != "" {
		t.Errorf("metrics (-server +page):\n%s", diff)
	}
	if len(got) == 0 {
		t.Error("found no metrics on the page: the test looks in the wrong place")
	}
}

// metrics gives what the server exposes.
func (s *server) metrics(t *testing.T) string {
	t.Helper()
	response, err := s.Get(s.URL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

// described notes the names of what is registered.
type described map[string]bool

func (d described) Register(c prometheus.Collector) error {
	descs := make(chan *prometheus.Desc)
	go func() {
		c.Describe(descs)
		close(descs)
	}()
	for desc := range descs {
		if match := metricDesc.FindStringSubmatch(desc.String()); match != nil {
			d[match[1]] = true
		}
	}
	return nil
}

func (d described) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		_ = d.Register(c)
	}
}

func (described) Unregister(prometheus.Collector) bool { return true }

func (d described) names() []string {
	var all []string
	for name := range d {
		all = append(all, name)
	}
	return all
}
