package config_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/config"
	"github.com/trunkline-sms/trunkline/pkg/secret"
)

type quota struct {
	ClaimTTL time.Duration `yaml:"claim_ttl" doc:"How long a claim lasts."`
	Limit    int64         `yaml:"limit" doc:"Messages a month."`
	Shard    uint8         `yaml:"shard"`
}

type settings struct {
	Data     string       `yaml:"data" doc:"The data directory."`
	Debug    bool         `yaml:"debug"`
	Reserve  float64      `yaml:"reserve" doc:"Free space in percent."`
	HTTP     httpSettings `yaml:"http" doc:"The listener."`
	Quota    quota        `yaml:"quota"`
	internal int
	Made     func() `yaml:"-"`
}

type httpSettings struct {
	Addr     string        `yaml:"addr"`
	Body     config.Size   `yaml:"max_body"`
	Password secret.String `yaml:"password"`
	Proxies  []string      `yaml:"trusted-proxies" doc:"Addresses whose word counts."`
}

func defaults() settings {
	return settings{
		Data: "./data", Reserve: 5, internal: 7,
		HTTP:  httpSettings{Addr: "127.0.0.1:8080", Body: 4 << 20, Proxies: []string{}},
		Quota: quota{ClaimTTL: 10 * time.Minute, Limit: -1},
	}
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trunkline.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// equal compares two settings, the secret by its value.
func equal(t *testing.T, got, want settings) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(settings{})); diff != "" {
		t.Errorf("settings (-want +got)\n%s", diff)
	}
}

func TestLoad(t *testing.T) {
	file := write(t, `
# the file wins over the defaults
data: /var/lib/trunkline
debug: true
reserve: 2.5
http:
  max_body: 512KiB
  password: 0123
  trusted-proxies: [10.0.0.1, 10.0.0.2]
quota:
  claim_ttl: 1h30m
  shard: 255
`)
	got := defaults()
	err := config.Load(&got, config.Options{File: file, Env: []string{
		"HOME=/root", "TRUNKLINEX=1", "TRUNKLINE_QUOTA_LIMIT=1000", "TRUNKLINE_HTTP_ADDR=:80=x", "TRUNKLINE_DEBUG=false",
		"TRUNKLINE_TEST_LOG=/tmp/x", "TRUNKLINE_TOKEN=abc",
	}, Others: []string{"TRUNKLINE_TOKEN"}})
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.Data, want.Reserve = "/var/lib/trunkline", 2.5
	want.HTTP = httpSettings{Addr: ":80=x", Body: 512 << 10, Password: "0123", Proxies: []string{"10.0.0.1", "10.0.0.2"}}
	want.Quota = quota{ClaimTTL: 90 * time.Minute, Limit: 1000, Shard: 255}
	equal(t, got, want)
}

func TestLoadLists(t *testing.T) {
	for name, text := range map[string]string{
		"sequence": "http: {trusted-proxies: [a, \"b\"]}",
		"items":    "http:\n  trusted-proxies:\n  - a\n  - b\n",
		"commas":   "http: {trusted-proxies: \"a, b,\"}",
	} {
		t.Run(name, func(t *testing.T) {
			got, want := defaults(), defaults()
			if err := config.Load(&got, config.Options{File: write(t, text)}); err != nil {
				t.Fatal(err)
			}
			want.HTTP.Proxies = []string{"a", "b"}
			equal(t, got, want)
		})
	}
	got, want := defaults(), defaults()
	if err := config.Load(&got, config.Options{Prefix: "X", Env: []string{"X_HTTP_TRUSTED_PROXIES=a,b", "TRUNKLINE_NO=1"}}); err != nil {
		t.Fatal(err)
	}
	want.HTTP.Proxies = []string{"a", "b"}
	equal(t, got, want)
}

func TestLoadKeepsDefaults(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "comment": "# nothing\n", "headings": "http:\nquota: # later\n", "document mark": "---\n",
	} {
		t.Run(name, func(t *testing.T) {
			got := defaults()
			if err := config.Load(&got, config.Options{File: write(t, text)}); err != nil {
				t.Fatal(err)
			}
			equal(t, got, defaults())
		})
	}
}

func TestLoadMissingFile(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "trunkline.yaml")
	got := defaults()
	if err := config.Load(&got, config.Options{File: missing}); err != nil {
		t.Errorf("a missing default file: %v", err)
	}
	if err := config.Load(&got, config.Options{File: missing, Explicit: true}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing explicit file: got %v, want fs.ErrNotExist", err)
	}
	if err := config.Load(&got, config.Options{File: t.TempDir()}); err == nil {
		t.Error("a directory was read as a file")
	}
}

func TestLoadErrors(t *testing.T) {
	tests := []struct {
		name, file string
		env        []string
		want       string
	}{
		{"unknown key", "data: x\nquota:\n  clam_ttl: 1m\n", nil, `FILE:3: unknown key "quota.clam_ttl", did you mean claim_ttl?`},
		{"unknown section", "# c\n\nmetrics: {}\n", nil, `FILE:3: unknown key "metrics"`},
		{"duration", "quota:\n  claim_ttl: 10\n", nil, `FILE:2: quota.claim_ttl: "10" is not a duration, write for example 10m or 1h30m`},
		{"size", "http:\n  max_body: much\n", nil, `FILE:2: http.max_body: "much" is not a size, write for example 4MiB`},
		{"bool", "debug: yes\n", nil, `FILE:1: debug: "yes" is neither true nor false`},
		{"int", "quota: {limit: 1.5}\n", nil, `FILE:1: quota.limit: "1.5" is not a whole number`},
		{"range", "quota: {shard: 256}\n", nil, `FILE:1: quota.shard: 256 is out of range`},
		{"negative", "quota: {shard: -1}\n", nil, `FILE:1: quota.shard: "-1" is not a whole number`},
		{"float", "reserve: .nan\n", nil, `FILE:1: reserve: ".nan" is not a number`},
		{"no value", "data:\n", nil, `FILE:1: data: has no value, write "" for an empty one`},
		{"map for a value", "data: {a: 1}\n", nil, `FILE:1: data: needs a plain value`},
		{"list for a value", "data: [a]\n", nil, `FILE:1: data: needs a plain value`},
		{"list in a list", "http: {trusted-proxies: [[a]]}\n", nil, `FILE:1: http.trusted-proxies: needs a plain value`},
		{"value for a section", "quota: 5\n", nil, `FILE:1: quota is a section, not a value`},
		{"no mapping", "- a\n", nil, `FILE:1: the file must be a list of sections, as in "http:"`},
		{"alias", "data: &x a\n", nil, `FILE:1: data: needs a plain value`},
		{"second document", "debug: true\n---\ndebug: false\n", nil, `FILE:3: a second document, only one is read`},
		{"duplicate key", "debug: true\ndebug: false\n", nil, `FILE:2: mapping key "debug" already defined at [1:1]`},
		{"syntax", "debug: true\nhttp: [\n", nil, `FILE:2: sequence end token ']' not found`},
		{"unknown variable", "", []string{"TRUNKLINE_QUOTA_LIMT=5"}, `unknown variable TRUNKLINE_QUOTA_LIMT, did you mean TRUNKLINE_QUOTA_LIMIT?`},
		{"far variable", "", []string{"TRUNKLINE_SOMETHING_ELSE=5"}, `unknown variable TRUNKLINE_SOMETHING_ELSE`},
		{"variable", "", []string{"TRUNKLINE_QUOTA_LIMIT="}, `variable TRUNKLINE_QUOTA_LIMIT: "" is not a whole number`},
		{
			"all at once", "data: x\nreserve: a lot\nhttp:\n  prot: 1\n", []string{"TRUNKLINE_DEBUG=1"},
			"FILE:2: reserve: \"a lot\" is not a number\nFILE:4: unknown key \"http.prot\"\nvariable TRUNKLINE_DEBUG: \"1\" is neither true nor false",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, file := defaults(), write(t, tt.file)
			err := config.Load(&got, config.Options{File: file, Env: tt.env})
			if err == nil {
				t.Fatal("no error")
			}
			if got := strings.ReplaceAll(err.Error(), file, "FILE"); got != tt.want {
				t.Errorf("error\n got %s\nwant %s", got, tt.want)
			}
			equal(t, got, defaults())
		})
	}
}

// An error may end in a log, so it never shows the lines around the place, where a password may stand.
func TestLoadErrorsHideSecrets(t *testing.T) {
	for _, text := range []string{
		"http:\n  password: hunter2\n  addr: [\n",
		"http:\n  password: [hunter2]\n",
		"http:\n  password: hunter2\n  password: hunter2\n",
		"http:\n  password: \"hunter2\n",
		"http:\n  password: hunter2\n\tx: 1\n",
	} {
		got := defaults()
		err := config.Load(&got, config.Options{File: write(t, text)})
		if err == nil {
			t.Errorf("%q: no error", text)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: the error shows the password: %v", text, err)
		}
	}
}

func TestDescribe(t *testing.T) {
	in := defaults()
	in.HTTP.Password, in.HTTP.Proxies = "hunter2", []string{"a", "b"}
	want := []config.Setting{
		{Path: "data", Env: "DATA", Default: "./data", Doc: "The data directory."},
		{Path: "debug", Env: "DEBUG", Default: "false"},
		{Path: "reserve", Env: "RESERVE", Default: "5", Doc: "Free space in percent."},
		{Path: "http.addr", Env: "HTTP_ADDR", Default: "127.0.0.1:8080"},
		{Path: "http.max_body", Env: "HTTP_MAX_BODY", Default: "4MiB"},
		{Path: "http.password", Env: "HTTP_PASSWORD", Default: "[secret]"},
		{Path: "http.trusted-proxies", Env: "HTTP_TRUSTED_PROXIES", Default: "a,b", Doc: "Addresses whose word counts."},
		{Path: "quota.claim_ttl", Env: "QUOTA_CLAIM_TTL", Default: "10m", Doc: "How long a claim lasts."},
		{Path: "quota.limit", Env: "QUOTA_LIMIT", Default: "-1", Doc: "Messages a month."},
		{Path: "quota.shard", Env: "QUOTA_SHARD", Default: "0"},
	}
	if diff := cmp.Diff(want, config.Describe(in)); diff != "" {
		t.Errorf("by value (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(want, config.Describe(&in)); diff != "" {
		t.Errorf("by pointer (-want +got)\n%s", diff)
	}
}

func TestSample(t *testing.T) {
	in := defaults()
	in.HTTP.Proxies = []string{"10.0.0.1", "fe80::1"}
	want := `# The data directory.
data: ./data
debug: false
# Free space in percent.
reserve: 5

# The listener.
http:
  addr: "127.0.0.1:8080"
  max_body: 4MiB
  password: ""
  # Addresses whose word counts.
  trusted-proxies: ["10.0.0.1", "fe80::1"]

quota:
  # How long a claim lasts.
  claim_ttl: 10m
  # Messages a month.
  limit: -1
  shard: 0
`
	if diff := cmp.Diff(want, string(config.Sample(in))); diff != "" {
		t.Errorf("sample (-want +got)\n%s", diff)
	}
}

func TestBrokenStructs(t *testing.T) {
	for name, v := range map[string]any{
		"no tag": struct{ A string }{},
		"option": struct {
			A string `yaml:"a,omitempty"`
		}{},
		"pointer": struct {
			A *string `yaml:"a"`
		}{},
		"map": struct {
			A map[string]string `yaml:"a"`
		}{},
		"one variable": struct {
			A string `yaml:"a_b"`
			B struct {
				C string `yaml:"b"`
			} `yaml:"a"`
		}{},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			config.Describe(v)
		})
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]config.Size{
		"0": 0, "17": 17, "17B": 17, "1KiB": 1024, "4 MiB": 4 << 20, "3GiB": 3 << 30, "2TiB": 2 << 40,
		"1kB": 1000, "5MB": 5e6, "1GB": 1e9, "8388607TiB": 8388607 << 40,
	} {
		var got config.Size
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", text, got, err, want)
		}
		var again config.Size
		if err := again.UnmarshalText([]byte(want.String())); err != nil || again != want {
			t.Errorf("%q: String gives %q, which reads as %d, %v", text, want, again, err)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1.5MiB", "8388608TiB", "9223372036854775808", "1 mib", "4M", "four"} {
		var got config.Size
		if err := got.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was read as %d", text, got)
		}
	}
}

// FuzzLoad: whatever a file holds, the answer is settings or an error that names the file; accepted settings survive
// being written and read again.
func FuzzLoad(f *testing.F) {
	in := defaults()
	f.Add(string(config.Sample(in)))
	f.Add("http: {addr: null, password: \"null\", trusted-proxies: [~]}")
	f.Add("data: |\n  a\n  b\n? x\n: y\n<<: *a\n")
	f.Add("quota:\n  claim_ttl: -1.5h\n  limit: 0x10\n---\n...\n")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		file := filepath.Join(dir, "fuzz.yaml")
		load := func(text string) (settings, error) {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			got := defaults()
			return got, config.Load(&got, config.Options{File: file, Explicit: true})
		}
		got, err := load(text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), file+":") {
				t.Errorf("the error does not name the file: %v", err)
			}
			equal(t, got, defaults())
			return
		}
		if got.HTTP.Password != "" {
			got.HTTP.Password = "[secret]" // what the sample shows
		}
		again, err := load(string(config.Sample(got)))
		if err != nil {
			t.Fatalf("the sample of accepted settings is refused: %v", err)
		}
		equal(t, again, got)
	})
}
