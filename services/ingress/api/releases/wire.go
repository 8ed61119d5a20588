package releases

// activeOut is the answer of GET app-version. What follows publishedAt goes
// beyond the documented fields.
type activeOut struct {
	Version        string `json:"version"`
	VersionCode    int64  `json:"versionCode"`
	DownloadURL    string `json:"downloadUrl"`
	ReleaseNotes   string `json:"releaseNotes"`
	FileSize       int64  `json:"fileSize"`
	PublishedAt    string `json:"publishedAt"`
	SHA256         string `json:"sha256"`
	MinVersionCode int64  `json:"minVersionCode"`
	Downloads      int64  `json:"downloads"`
}

// listOut is the answer of GET app-versions.
type listOut struct {
	Versions []listedOut `json:"versions"`
}

// listedOut is an item of the list.
type listedOut struct {
	Version        string `json:"version"`
	VersionCode    int64  `json:"versionCode"`
	IsActive       bool   `json:"isActive"`
	DownloadURL    string `json:"downloadUrl"`
	ReleaseNotes   string `json:"releaseNotes"`
	FileSize       int64  `json:"fileSize"`
	PublishedAt    string `json:"publishedAt"`
	SHA256         string `json:"sha256"`
	MinVersionCode int64  `json:"minVersionCode"`
	Downloads      int64  `json:"downloads"`
}

// faultOut is the answer to a request that was rejected.
type faultOut struct {
	Error string `json:"error"`
	Code  string `json:"code"`
}
