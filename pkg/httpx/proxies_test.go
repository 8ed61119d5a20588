package httpx_test

import (
	"net/http"
	"net/netip"
	"testing"

	"github.com/trunkline-sms/trunkline/pkg/httpx"
)

func TestProxies_From(t *testing.T) {
	proxies := httpx.Proxies{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:1::/48")}
	for name, test := range map[string]struct {
		remote string
		header []string
		want   string
	}{
		"no proxy":                         {"192.0.2.1:1234", nil, "192.0.2.1/32"},
		"a stranger's word":                {"192.0.2.1:1234", []string{"198.51.100.9"}, "192.0.2.1/32"},
		"a proxy":                          {"10.1.2.3:1234", []string{"198.51.100.9"}, "198.51.100.9/32"},
		"a proxy that says nothing":        {"10.1.2.3:1234", nil, "10.1.2.3/32"},
		"what the client wrote before":     {"10.1.2.3:1234", []string{"203.0.113.1, 198.51.100.9"}, "198.51.100.9/32"},
		"in a header of its own":           {"10.1.2.3:1234", []string{"203.0.113.1", "198.51.100.9"}, "198.51.100.9/32"},
		"two proxies":                      {"10.1.2.3:1234", []string{"203.0.113.1, 198.51.100.9,10.0.0.7"}, "198.51.100.9/32"},
		"the client claims to be a proxy":  {"10.1.2.3:1234", []string{"10.9.9.9, 198.51.100.9"}, "198.51.100.9/32"},
		"proxies only":                     {"10.1.2.3:1234", []string{"10.0.0.8, 10.0.0.7"}, "10.0.0.8/32"},
		"no address":                       {"10.1.2.3:1234", []string{"198.51.100.9, unknown"}, "10.1.2.3/32"},
		"an empty header":                  {"10.1.2.3:1234", []string{""}, "10.1.2.3/32"},
		"with a port":                      {"10.1.2.3:1234", []string{"198.51.100.9:555"}, "198.51.100.9/32"},
		"IPv6":                             {"[2001:db8:2:3:4:5:6:7]:1234", nil, "2001:db8:2:3::/64"},
		"IPv6 behind a proxy":              {"[2001:db8:1::1]:1234", []string{"2001:db8:2:3:4:5:6:7"}, "2001:db8:2:3::/64"},
		"IPv6 in brackets":                 {"10.1.2.3:1234", []string{"[2001:db8:2:3:4:5:6:7]:99"}, "2001:db8:2:3::/64"},
		"IPv6 with a zone":                 {"[fe80::1%eth0]:1234", nil, "fe80::/64"},
		"IPv4 in IPv6":                     {"[::ffff:192.0.2.1]:1234", nil, "192.0.2.1/32"},
		"IPv4 in IPv6 behind such a proxy": {"[::ffff:10.0.0.1]:1234", []string{"::ffff:198.51.100.9"}, "198.51.100.9/32"},
		"no network":                       {"pipe", []string{"198.51.100.9"}, "invalid Prefix"},
	} {
		r := &http.Request{RemoteAddr: test.remote, Header: http.Header{}}
		if test.header != nil {
			r.Header["X-Forwarded-For"] = test.header
		}
		if got := proxies.From(r).String(); got != test.want {
			t.Errorf("%s: got %s, want %s", name, got, test.want)
		}
	}
}
