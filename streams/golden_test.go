package streams_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/streams"
)

var update = flag.Bool("update", false, "write the golden files")

func TestDefinitionsAreGolden(t *testing.T) {
	d := streams.Deployment{Shards: 1, Replicas: 1, EnqueueMaxBytes: 16 << 30, StatusMaxBytes: 8 << 30}
	for name, definition := range map[string]any{
		"ENQUEUE_0": d.Enqueue(0),
		"STATUS_0":  d.Status(0),
		"accounts":  d.Accounts(),
		"devices":   d.Devices(),
		"claims":    d.Claims(),
		"registry":  d.Registry(),
		"sessions":  d.Sessions(),
		"RELEASE":   d.Release(),
		"apks":      d.Apks(),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := json.MarshalIndent(definition, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			file := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(file, got, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("%s differs from its golden file (run `make golden` if that is meant):\n%s", name, diff)
			}
		})
	}
}
