package releases

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

var (
	errNoActive  = fault.New(fault.NotFound, "no_active_version", "No active version available")
	errNoVersion = fault.New(fault.NotFound, "version_not_found", "Version not found")
	errCrowd     = fault.New(fault.Unavailable, "too_many_downloads", "Too many downloads are under way, try again")
)

const (
	activePath = "/download/app.apk"
	codePath   = "/api/download/"

	// timeForm has an offset where RFC 3339 would have a Z.
	timeForm = "2006-01-02T15:04:05-07:00"
)

// active finds the active release: the one that apps are told to install.
func active(all []request.AppVersion) (request.AppVersion, error) {
	for _, v := range all {
		if v.Active {
			return v, nil
		}
	}
	return request.AppVersion{}, errNoActive
}

// find finds the release that a path names.
func find(all []request.AppVersion, text string) (request.AppVersion, error) {
	code, err := streams.ParseVersionCode(text)
	if err != nil {
		return request.AppVersion{}, errNoVersion
	}
	for _, v := range all {
		if v.Code == code {
			return v, nil
		}
	}
	return request.AppVersion{}, errNoVersion
}

func activeAnswer(v request.AppVersion, base string) activeOut {
	return activeOut{
		Version: v.Version, VersionCode: int64(v.Code), DownloadURL: base + activePath, ReleaseNotes: v.Notes, FileSize: v.Size,
		PublishedAt: formatTime(v.Published), SHA256: v.SHA256, MinVersionCode: int64(v.MinCode), Downloads: v.Downloads,
	}
}

func listAnswer(all []request.AppVersion, base string) listOut {
	out := listOut{Versions: []listedOut{}}
	for _, v := range all {
		out.Versions = append(out.Versions, listedOut{
			Version: v.Version, VersionCode: int64(v.Code), IsActive: v.Active, DownloadURL: base + codePath + v.Code.String(), ReleaseNotes: v.Notes,
			FileSize: v.Size, PublishedAt: formatTime(v.Published), SHA256: v.SHA256, MinVersionCode: int64(v.MinCode), Downloads: v.Downloads,
		})
	}
	return out
}

func formatTime(t time.Time) string { return t.UTC().Format(timeForm) }

// fileName is what a browser calls the file. A version's name may hold anything
// that can be printed.
func fileName(version string) string {
	return "app-v" + strings.Map(func(char rune) rune {
		switch {
		case char >= '0' && char <= '9', char >= 'a' && char <= 'z', char >= 'A' && char <= 'Z', strings.ContainsRune(".-_+", char):
			return char
		}
		return '_'
	}, version) + ".apk"
}

// Links are how download links begin.
type Links struct {
	// Public is the address that everybody reaches the server at, as in
	// https://sms.example.org; empty: the one that the request was made to.
	Public string
	// Proxies are trusted to say which address that was.
	Proxies httpx.Proxies
}

var hostForm = regexp.MustCompile(`^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$`)

// base is how the links of an answer begin. If the request names no host, they have
// none.
func (l Links) base(r *http.Request) string {
	if l.Public != "" {
		return strings.TrimSuffix(l.Public, "/")
	}
	host := l.Proxies.Host(r)
	if !hostForm.MatchString(host) {
		return ""
	}
	return (&url.URL{Scheme: l.Proxies.Scheme(r), Host: host}).String()
}

// refusal is the answer to a fault.
func refusal(f *fault.Error) (status int, body faultOut) {
	switch f.Kind {
	case fault.NotFound:
		status = http.StatusNotFound
	case fault.Unavailable, fault.Full:
		status = http.StatusServiceUnavailable
	default:
		status = http.StatusInternalServerError
	}
	return status, faultOut{f.Text, f.Code}
}
