package request

// ProjectionVerify is the subject of Verify → Verified of one projection, such
// as "quota" or "dispatcher-0".
func ProjectionVerify(name string) string { return "trunkline.projection." + name + ".verify" }

// ProjectionRebuild is the subject of Rebuild → Rebuilt of one projection.
func ProjectionRebuild(name string) string { return "trunkline.projection." + name + ".rebuild" }

// ProjectionDump is the subject of Dump → Dumped of one projection.
func ProjectionDump(name string) string { return "trunkline.projection." + name + ".dump" }

// Verify asks whether a rebuild would equal the live projection.
type Verify struct{}

// Verified answers a Verify.
type Verified struct {
	Difference string `json:"difference,omitempty"` // the first one, empty if they are equal
}

// Rebuild asks for the projection to be rebuilt from the streams.
type Rebuild struct{}

// Rebuilt answers a Rebuild.
type Rebuilt struct{}

// Dump asks for a part of the projection's content, as text lines.
type Dump struct {
	File string `json:"file"` // where the service writes it, on its own disk
}

// Dumped answers a Dump.
type Dumped struct {
	Bytes int64 `json:"bytes"`
}
