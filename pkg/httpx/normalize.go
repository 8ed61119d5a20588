package httpx

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/gin-gonic/gin"
)

// Normalize writes the paths of requests as the routes have them, before they are routed: without empty segments,
// and what a route says itself in the route's case. Parameters stay as they are, byte for byte. No client is
// redirected. A path that fits no route loses its empty segments only. No two routes may differ by case alone.
func Normalize(next http.Handler, routes gin.RoutesInfo) http.Handler {
	n := normalizer{of: map[string]*branch{}, all: &branch{}}
	for _, route := range routes {
		if n.of[route.Method] == nil {
			n.of[route.Method] = &branch{}
		}
		n.of[route.Method].add(route.Path)
		n.all.add(route.Path)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path := n.path(r.Method, r.URL.Path); path != r.URL.Path || r.URL.RawPath != "" {
			own := new(http.Request)
			*own = *r
			own.URL = new(url.URL)
			*own.URL = *r.URL
			own.URL.Path, own.URL.RawPath = path, ""
			r = own
		}
		next.ServeHTTP(w, r)
	})
}

// normalizer knows the routes of each method, and those of all: a path with another method is refused as such.
type normalizer struct {
	of  map[string]*branch
	all *branch
}

func (n normalizer) path(method, path string) string {
	if !strings.HasPrefix(path, "/") { // as in OPTIONS *
		return path
	}
	if own := n.of[method]; own != nil {
		if found, ok := own.find(path, ""); ok {
			return found
		}
	}
	if found, ok := n.all.find(path, ""); ok {
		return found
	}
	return "/" + strings.Join(segments(path), "/")
}

// segments are a path's parts that are not empty.
func segments(path string) []string {
	return strings.FieldsFunc(path, func(char rune) bool { return char == '/' })
}

// branch is what the routes have behind the same segments.
type branch struct {
	static map[string]*branch // by its name in lower case
	name   string             // as the route writes it
	param  *branch
	rest   bool // a route takes whatever follows
	end    bool // a route ends here
	slash  bool // a route ends here, with a slash
}

func (b *branch) add(route string) {
	for _, segment := range segments(route) {
		switch segment[0] {
		case '*':
			b.rest = true
			return
		case ':':
			if b.param == nil {
				b.param = &branch{}
			}
			b = b.param
		default:
			if b.static == nil {
				b.static = map[string]*branch{}
			}
			next := b.static[lower(segment)]
			if next == nil {
				next = &branch{name: segment}
				b.static[lower(segment)] = next
			}
			b = next
		}
	}
	if strings.HasSuffix(route, "/") {
		b.slash = true
	} else {
		b.end = true
	}
}

// find writes what follows in a path as a route has it, behind what is written already. What a route says itself goes
// before parameters, as in gin.
func (b *branch) find(path, written string) (string, bool) {
	path = strings.TrimLeft(path, "/")
	if path == "" {
		switch {
		case b.end:
			return written, true
		case b.slash, b.rest:
			return written + "/", true
		}
		return "", false
	}
	segment, after, _ := strings.Cut(path, "/")
	if next := b.static[lower(segment)]; next != nil {
		if found, ok := next.find(after, written+"/"+next.name); ok {
			return found, true
		}
	}
	if b.param != nil {
		if found, ok := b.param.find(after, written+"/"+segment); ok {
			return found, true
		}
	}
	if b.rest {
		return written + "/" + path, true
	}
	return "", false
}

// lower lowers the case of ASCII: elsewhere letters of different words may have the same.
func lower(s string) string {
	return strings.Map(func(char rune) rune {
		if char >= 'A' && char <= 'Z' {
			return char + 'a' - 'A'
		}
		return char
	}, s)
}
