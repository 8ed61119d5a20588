package node

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zapcore"

	"github.com/trunkline-sms/trunkline/pkg/config"
)

var update = flag.Bool("update", false, "write configs/trunkline.yaml")

const (
	settingsFile = "../../configs/trunkline.yaml"
	header       = `# Every setting of Trunkline with its default. A setting that is left out has its default; an unknown one stops the
# start. The variable TRUNKLINE_<PATH>, as in TRUNKLINE_ENGINE_DURABILITY, goes before the file, a flag before both.

`
)

// The file that documents the settings is made from the code, so that neither
// has a setting, a default or a sentence that the other has not.
func TestSettingsFile(t *testing.T) {
	want := header + string(config.Sample(DefaultConfig()))
	if *update {
		if err := os.MkdirAll(filepath.Dir(settingsFile), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(settingsFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(settingsFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("run make golden: %s differs from the code (-want +got):\n%s", settingsFile, diff)
	}
}

// Reading the file gives what holds without it.
func TestSettingsFileHoldsTheDefaults(t *testing.T) {
	got := Config{Log: Log{Level: zapcore.ErrorLevel}}
	if err := config.Load(&got, config.Options{File: settingsFile, Explicit: true}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(DefaultConfig(), got); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
}

func TestSettingsAreDescribed(t *testing.T) {
	settings := config.Describe(DefaultConfig())
	if len(settings) == 0 {
		t.Fatal("got no settings")
	}
	for _, s := range settings {
		if !strings.HasSuffix(s.Doc, ".") {
			t.Errorf("setting %s: want a sentence, got %q", s.Path, s.Doc)
		}
	}
}

func TestConfigRefuses(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"http:":               func(c *Config) { c.HTTP = "" },
		"data:":               func(c *Config) { c.Data = "" },
		"engine.durability:":  func(c *Config) { c.Engine.Durability = "maybe" },
		"engine.shards:":      func(c *Config) { c.Engine.Shards = 65 },
		"engine.enqueue_max":  func(c *Config) { c.Engine.EnqueueMaxBytes = 1000 },
		"engine.reserve_p":    func(c *Config) { c.Engine.ReservePercent = 91 },
		"engine.reserve_m":    func(c *Config) { c.Engine.ReserveMin = -1 },
		"engine.max_store:":   func(c *Config) { c.Engine.MaxStore = 1 << 30 },
		"ingress.stop_grace:": func(c *Config) { c.Ingress.StopGrace = 0 },
	} {
		c := DefaultConfig()
		change(&c)
		if err := c.Check(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got error %v, want one about %s", err, want)
		}
	}
	if err := DefaultConfig().Check(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
}
