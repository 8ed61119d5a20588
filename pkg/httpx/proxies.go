package httpx

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Proxies are the addresses whose X-Forwarded-Proto, X-Forwarded-Host and X-Forwarded-For are believed.
type Proxies []netip.Prefix

// Scheme is "https" or "http": how the client made the request. Behind a proxy it is what the proxy says.
func (p Proxies) Scheme(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	// With several proxies, the first value comes from the proxy that the client has reached.
	if first := p.forwarded(r, "X-Forwarded-Proto"); first == "http" || first == "https" {
		scheme = first
	}
	return scheme
}

// Host is the host to which the client has made the request. Behind a proxy it is what the proxy says.
func (p Proxies) Host(r *http.Request) string {
	if first := p.forwarded(r, "X-Forwarded-Host"); first != "" {
		return first
	}
	return r.Host
}

// From is the network that a request comes from: an IPv4 address, or the first 64 bits of an IPv6 address, because a
// customer is given that many. Behind proxies it is the address that the outermost trusted proxy has seen. Anybody can
// write what stands before that in X-Forwarded-For. It is the zero Prefix where the address is not known.
func (p Proxies) From(r *http.Request) netip.Prefix {
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Prefix{}
	}
	at := remote.Addr().Unmap()
	seen := r.Header["X-Forwarded-For"]
	for i := len(seen) - 1; i >= 0; i-- {
		for rest := seen[i]; rest != ""; {
			if !p.trust(at) {
				return network(at)
			}
			last := rest
			if comma := strings.LastIndexByte(rest, ','); comma >= 0 {
				rest, last = rest[:comma], rest[comma+1:]
			} else {
				rest = ""
			}
			next, err := parseHop(strings.TrimSpace(last))
			if err != nil {
				return network(at)
			}
			at = next
		}
	}
	return network(at)
}

// parseHop parses an address of X-Forwarded-For: some proxies add the port.
func parseHop(text string) (netip.Addr, error) {
	if port, err := netip.ParseAddrPort(text); err == nil {
		return port.Addr().Unmap(), nil
	}
	at, err := netip.ParseAddr(strings.Trim(text, "[]"))
	return at.Unmap(), err
}

func network(at netip.Addr) netip.Prefix {
	bits := at.BitLen()
	if at.Is6() {
		bits = 64
	}
	prefix, _ := at.WithZone("").Prefix(bits) // fails for too many bits only
	return prefix
}

func (p Proxies) trust(at netip.Addr) bool {
	return slices.ContainsFunc(p, func(proxies netip.Prefix) bool { return proxies.Contains(at) })
}

func (p Proxies) forwarded(r *http.Request, header string) string {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !p.trust(from.Addr().Unmap()) {
		return ""
	}
	first, _, _ := strings.Cut(r.Header.Get(header), ",")
	return strings.TrimSpace(first)
}
