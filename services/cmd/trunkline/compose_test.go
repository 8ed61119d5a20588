package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/trunkline-sms/trunkline/pkg/config"
	"github.com/trunkline-sms/trunkline/pkg/testkit/testnote"
	"github.com/trunkline-sms/trunkline/services/node"
	"github.com/trunkline-sms/trunkline/services/operator"
)

// composed is what the compose file says, as far as the test reads it.
type composed struct {
	Services map[string]struct {
		Image       string            `yaml:"image"`
		Entrypoint  []string          `yaml:"entrypoint"`
		Command     []string          `yaml:"command"`
		User        string            `yaml:"user"`
		ReadOnly    bool              `yaml:"read_only"`
		Environment map[string]string `yaml:"environment"`
		EnvFile     []string          `yaml:"env_file"`
		Secrets     []string          `yaml:"secrets"`
		Volumes     []string          `yaml:"volumes"`
		Networks    []string          `yaml:"networks"`
		Profiles    []string          `yaml:"profiles"`
		Restart     string            `yaml:"restart"`
		StopGrace   string            `yaml:"stop_grace_period"`
		Healthcheck struct {
			Test []string `yaml:"test"`
		} `yaml:"healthcheck"`
		Deploy struct {
			Resources struct {
				Limits map[string]string `yaml:"limits"`
			} `yaml:"resources"`
		} `yaml:"deploy"`
	} `yaml:"services"`
	Networks map[string]any               `yaml:"networks"`
	Volumes  map[string]any               `yaml:"volumes"`
	Secrets  map[string]map[string]string `yaml:"secrets"`
}

var confVariable = regexp.MustCompile(`\$([A-Z_]+)`)

// The compose file fits the command, its settings, the nodes' configuration and the keys that the command makes.
func TestCompose(t *testing.T) {
	text, err := os.ReadFile("../../../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file composed
	// What is merged in may be said otherwise beside it.
	if err := yaml.UnmarshalWithOptions(text, &file, yaml.AllowDuplicateMapKey()); err != nil {
		t.Fatal(err)
	}
	wanted := nodeVariables(t)
	keys := operator.Keys{Dir: t.TempDir(), Owner: -1}
	if err := keys.Run(t.Context(), &operator.Terminal{Out: io.Discard}); err != nil {
		t.Fatal(err)
	}
	public, err := os.ReadFile(keys.Dir + "/keys.env")
	if err != nil {
		t.Fatal(err)
	}
	parts := map[string]int{}
	for name, s := range file.Services {
		if s.Deploy.Resources.Limits["memory"] == "" || s.Deploy.Resources.Limits["cpus"] == "" {
			t.Errorf("%s: has no limits of memory and processors", name)
		}
		runs := s.Restart == "unless-stopped"
		if runs && (len(s.Healthcheck.Test) == 0 || s.StopGrace == "") {
			t.Errorf("%s: has no health check or no time to stop", name)
		}
		for _, secret := range s.Secrets {
			path := file.Secrets[secret]["file"]
			if path == "" {
				t.Errorf("%s: there is no secret %s", name, secret)
			}
			if _, err := os.Stat(keys.Dir + "/" + strings.TrimPrefix(path, "./secrets/")); err != nil && secret != "grafana" {
				t.Errorf("%s: the command makes no key %s", name, secret)
			}
		}
		for _, volume := range s.Volumes {
			from, _, _ := strings.Cut(volume, ":")
			if _, ok := file.Volumes[from]; !ok && !strings.HasPrefix(from, "./") {
				t.Errorf("%s: there is no volume %s", name, from)
			}
			if strings.HasPrefix(from, "./") {
				if _, err := os.Stat("../../../" + from); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		for _, network := range s.Networks {
			if _, ok := file.Networks[network]; !ok {
				t.Errorf("%s: there is no network %s", name, network)
			}
		}
		if !strings.HasPrefix(s.Image, "trunkline:") {
			continue
		}
		if !s.ReadOnly || s.User == "" || s.User == "0" {
			t.Errorf("%s: runs as root or writes to its root file system", name)
		}
		if runs && s.Healthcheck.Test[1] == "/trunkline" {
			parse(t, name, s.Healthcheck.Test[2:])
		}
		if len(s.Entrypoint) > 0 {
			for _, variable := range wanted {
				if s.Environment[variable] == "" && !strings.Contains(string(public), variable+"=") {
					t.Errorf("%s: the nodes' configuration asks for %s", name, variable)
				}
			}
			continue
		}
		parse(t, name, s.Command)
		if s.Command[0] != "serve" {
			continue
		}
		parts[s.Command[1]]++
		if want := s.Command[1] + ".nk"; !slices.Contains(s.Secrets, want) || len(s.Secrets) != 2 {
			t.Errorf("%s: got the secrets %v, want the authority and %s", name, s.Secrets, want)
		}
		var env []string
		for key, value := range s.Environment {
			env = append(env, key+"="+value)
		}
		cfg := node.DefaultConfig()
		if err := config.Load(&cfg, config.Options{Env: env}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(cfg.NATS.URLs) != 3 {
			t.Errorf("%s: got the nodes %v, want three", name, cfg.NATS.URLs)
		}
	}
	for _, part := range node.Parts() {
		want := 2
		if part == node.Version { // nobody waits for it
			want = 1
		}
		if parts[part] != want {
			t.Errorf("got %d of %s, want %d", parts[part], part, want)
		}
	}
}

// The compose file is one to Docker, too, where there is one; no daemon is asked.
func TestCompose_Docker(t *testing.T) {
	if err := exec.Command("docker", "compose", "version").Run(); err != nil {
		testnote.Skip(t, "docker compose is not here: "+err.Error())
	}
	text, err := os.ReadFile("../../../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	keys := operator.Keys{Dir: filepath.Join(dir, "secrets"), Owner: -1}
	if err := keys.Run(t.Context(), &operator.Terminal{Out: io.Discard}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "docker-compose.yml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	check := exec.Command("docker", "compose", "-f", path, "--profile", "metrics", "--profile", "tools", "config", "--quiet")
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// parse checks that the command line is one.
func parse(t *testing.T, name string, args []string) {
	t.Helper()
	if _, err := newParser(&operator.Terminal{Out: io.Discard, Err: io.Discard}).Parse(args); err != nil {
		t.Errorf("%s: %v: %v", name, args, err)
	}
}

// nodeVariables are what the nodes' configuration takes from its environment.
func nodeVariables(t *testing.T) (names []string) {
	t.Helper()
	for _, path := range []string{"nats.conf", "accounts.conf"} {
		text, err := os.ReadFile("../../../configs/cluster/" + path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(strings.TrimSpace(line), "#") {
				continue
			}
			for _, match := range confVariable.FindAllStringSubmatch(line, -1) {
				if !strings.Contains(line, "\"$"+match[1]) && !slices.Contains(names, match[1]) {
					names = append(names, match[1])
				}
			}
		}
	}
	if len(names) < 8 {
		t.Fatalf("got the variables %v: the test looks in the wrong place", names)
	}
	return names
}
