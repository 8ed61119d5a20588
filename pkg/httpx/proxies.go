package httpx

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Proxies are the addresses whose X-Forwarded-Proto, X-Forwarded-Host and X-Forwarded-For are believed.
type Proxies []netip.Prefix

// Scheme is "https" or "http": as the client made the request, as far as a proxy says so.
func (p Proxies) Scheme(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	// Of several proxies the first one has written what the client sees.
	if first := p.forwarded(r, "X-Forwarded-Proto"); first == "http" || first == "https" {
		scheme = first
	}
	return scheme
}

// Host is the host that the client made the request to.
func (p Proxies) Host(r *http.Request) string {
	if first := p.forwarded(r, "X-Forwarded-Host"); first != "" {
		return first
	}
	return r.Host
}

// From is the network that a request comes from: an address of IPv4, or the 64 bits of one of IPv6 that a customer is
// given. Behind proxies it is the last address that one of them has seen; what stands before it in X-Forwarded-For
// anybody may have written. It is none where the address is not known.
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

// parseHop reads an address as proxies write it: some add the port.
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
