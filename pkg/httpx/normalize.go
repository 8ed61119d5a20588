package httpx

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/gin-gonic/gin"
)

// Normalize rewrites the path of each request to the form that its route has, before it is routed. Empty segments go,
// and fixed segments get the case of the route. Parameters stay as they are, byte for byte. Clients are not redirected:
// many do not follow a redirect of a POST. A path that fits no route only loses its empty segments. No two routes may
// differ by case alone.
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

// normalizer knows the routes of each method, and those of all methods together: a request with the wrong method gets
// the route's form too, so that it is answered with 405.
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

// segments gives the parts of a path that are not empty.
func segments(path string) []string {
	return strings.FieldsFunc(path, func(char rune) bool { return char == '/' })
}

// branch is a node in the tree of the routes' segments: what may follow the segments that lead to it.
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

// find appends the rest of a path to written, in the form of a route. A fixed segment goes before a parameter, as in
// gin. It is false where no route fits.
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

// lower puts ASCII letters into lower case. Other letters stay: two different ones may have the same lower case.
func lower(s string) string {
	return strings.Map(func(char rune) rune {
		if char >= 'A' && char <= 'Z' {
			return char + 'a' - 'A'
		}
		return char
	}, s)
}
