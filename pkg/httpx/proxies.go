package httpx

import (
	"net/http"
	"net/netip"
	"strings"
)

// Proxies are the addresses whose X-Forwarded-Proto and X-Forwarded-Host are believed.
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

func (p Proxies) forwarded(r *http.Request, header string) string {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	for _, proxies := range p {
		if proxies.Contains(from.Addr().Unmap()) {
			first, _, _ := strings.Cut(r.Header.Get(header), ",")
			return strings.TrimSpace(first)
		}
	}
	return ""
}
