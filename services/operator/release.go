package operator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/trunkline-sms/trunkline/pkg/apk"
	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/object"
	"github.com/trunkline-sms/trunkline/pkg/table"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// Release are the commands about releases of the gateway app.
type Release struct {
	Publish  releasePublish  `cmd:"" help:"Publish an APK as a release."`
	List     releaseList     `cmd:"" help:"List the releases, the newest first."`
	Show     releaseShow     `cmd:"" help:"Show a release with its notes."`
	Activate releaseActivate `cmd:"" help:"Make a release the one that apps are told to have."`
	Withdraw releaseWithdraw `cmd:"" help:"Take a release back, for ever, and remove its file."`
	Verify   releaseVerify   `cmd:"" help:"Read every release's file in the store and compare it with what was published."`
}

// storeTimeout bounds work on a whole file.
const storeTimeout = time.Hour

type releasePublish struct {
	server
	asJSON
	File      string `arg:"" placeholder:"FILE" help:"The APK."`
	Notes     string `placeholder:"TEXT" xor:"notes" help:"What is new, for people."`
	NotesFile string `placeholder:"FILE" xor:"notes" help:"File with what is new, - for standard input."`
	MinCode   int64  `placeholder:"CODE" help:"Apps below this version code must update."`
	Activate  bool   `help:"Activate it as well."`
}

func (releasePublish) Help() string {
	return `Package, version name and version code are read from the APK. It is visible once it is stored whole; a version code
is used only once.

Example:

    trunkline release publish app.apk --notes-file CHANGES.txt --activate`
}

func (c *releasePublish) Run(ctx context.Context, t *Terminal) error {
	notes, err := c.notes(t)
	if err != nil {
		return err
	}
	file, err := os.Open(c.File)
	if err != nil {
		return fmt.Errorf("read the APK: %w", err)
	}
	defer func() { _ = file.Close() }()
	stat, err := file.Stat()
	if err != nil {
		return fmt.Errorf("read the APK: %w", err)
	}
	info, err := apk.Read(file, stat.Size())
	if err != nil {
		return fmt.Errorf("%s: %w", c.File, err)
	}
	b, closeConn, err := c.dial()
	if err != nil {
		return err
	}
	defer closeConn()
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	code := streams.VersionCode(info.Code)
	if _, err := call[request.VersionChecked](ctx, b, request.VersionCheck, request.CheckVersion{Code: code, Package: info.Package, Size: stat.Size()}); err != nil {
		return err
	}
	store := object.Open(b, streams.ApksBucket)
	bar := t.bar(stat.Size(), "uploading "+info.Version)
	uploaded, err := store.Put(ctx, io.NewSectionReader(file, 0, stat.Size()), bar.tell)
	bar.end()
	if err != nil {
		return err
	}
	// It reads the whole file back before it answers.
	published, err := bus.Call[request.AppVersion](ctx, b, request.VersionPublish, request.PublishVersion{
		Code: code, Version: info.Version, Package: info.Package, Notes: notes, MinCode: streams.VersionCode(c.MinCode),
		Size: uploaded.Size, SHA256: uploaded.SHA256, Object: uploaded.Name,
	})
	if err != nil {
		return errors.Join(plain(err), store.Remove(context.WithoutCancel(ctx), uploaded.Name))
	}
	if c.Activate {
		published, err = call[request.AppVersion](ctx, b, request.VersionActivate, request.ActivateVersion{Code: code})
		if err != nil {
			return fmt.Errorf("it is published, but not activated: %w", err)
		}
	}
	if c.JSON {
		return t.printJSON(published)
	}
	if !c.Activate {
		return t.printLine("%s (code %v) is published; activate it with `trunkline release activate %v`", published.Version, code, code)
	}
	return t.printLine("%s (code %v) is published and active", published.Version, code)
}

// maxNotes is more than the server takes.
const maxNotes = 1 << 20

func (c *releasePublish) notes(t *Terminal) (string, error) {
	if c.NotesFile == "" {
		return c.Notes, nil
	}
	from := t.In
	if c.NotesFile != "-" {
		file, err := os.Open(c.NotesFile)
		if err != nil {
			return "", fmt.Errorf("read the notes: %w", err)
		}
		defer func() { _ = file.Close() }()
		from = file
	}
	notes, err := io.ReadAll(io.LimitReader(from, maxNotes))
	if err != nil {
		return "", fmt.Errorf("read the notes: %w", err)
	}
	return strings.TrimRight(strings.ReplaceAll(string(notes), "\r\n", "\n"), "\n"), nil
}

// bar shows how far something is, to people.
type bar struct{ *progressbar.ProgressBar }

func (t *Terminal) bar(bytes int64, what string) bar {
	file, ok := t.Err.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return bar{progressbar.DefaultBytesSilent(bytes)}
	}
	return bar{progressbar.NewOptions64(bytes,
		progressbar.OptionSetWriter(file),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(true),
		progressbar.OptionThrottle(50*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)}
}

func (b bar) tell(bytes int64) { _ = b.Set64(bytes) }

func (b bar) end() { _ = b.Finish() }

// versions lists the releases.
func (s server) versions(ctx context.Context) ([]request.AppVersion, *bus.Bus, func(), error) {
	b, closeConn, err := s.dial()
	if err != nil {
		return nil, nil, nil, err
	}
	listed, err := call[request.VersionsListed](ctx, b, request.VersionList, request.Versions{Fresh: true})
	if err != nil {
		closeConn()
		return nil, nil, nil, err
	}
	return listed.Versions, b, closeConn, nil
}

func standing(v request.AppVersion) string {
	switch {
	case v.Active:
		return "active"
	case v.Withdrawn:
		return "withdrawn"
	}
	return "published"
}

type releaseList struct {
	server
	asJSON
}

func (releaseList) Help() string {
	return "Example:\n\n    trunkline release list"
}

func (c *releaseList) Run(ctx context.Context, t *Terminal) error {
	versions, _, closeConn, err := c.versions(ctx)
	if err != nil {
		return err
	}
	defer closeConn()
	if c.JSON {
		return t.printJSON(versions)
	}
	var p table.Table
	p.Row("CODE", "VERSION", "STATE", "PUBLISHED", "BYTES", "DOWNLOADS")
	for _, v := range versions {
		p.Row(v.Code, v.Version, standing(v), formatTime(v.Published), v.Size, v.Downloads)
	}
	return p.Print(t.Out)
}

type releaseShow struct {
	server
	asJSON
	Code string `arg:"" help:"Version code."`
}

func (releaseShow) Help() string {
	return "Example:\n\n    trunkline release show 5"
}

func (c *releaseShow) Run(ctx context.Context, t *Terminal) error {
	code, err := parseCode(c.Code)
	if err != nil {
		return err
	}
	versions, _, closeConn, err := c.versions(ctx)
	if err != nil {
		return err
	}
	defer closeConn()
	for _, v := range versions {
		if v.Code != code {
			continue
		}
		if c.JSON {
			return t.printJSON(v)
		}
		var p table.Table
		p.Row("code", v.Code)
		p.Row("version", v.Version)
		p.Row("package", v.Package)
		p.Row("state", standing(v))
		p.Row("published", formatTime(v.Published))
		p.Row("must update", "below "+strconv.FormatInt(int64(v.MinCode), 10))
		p.Row("bytes", v.Size)
		p.Row("sha256", v.SHA256)
		p.Row("object", v.Object)
		p.Row("downloads", v.Downloads)
		if err := p.Print(t.Out); err != nil || v.Notes == "" {
			return err
		}
		return t.printLine("\n%s", v.Notes)
	}
	return fmt.Errorf("there is no release with version code %v: see `trunkline release list`", code)
}

func parseCode(text string) (streams.VersionCode, error) {
	code, err := streams.ParseVersionCode(text)
	if err != nil {
		return 0, fmt.Errorf("version code %q: want the number that `trunkline release list` prints", text)
	}
	return code, nil
}

type releaseActivate struct {
	server
	asJSON
	Code string `arg:"" help:"Version code."`
}

func (releaseActivate) Help() string {
	return "An older release can be activated again; phones do not install it over a newer one.\n\nExample:\n\n    trunkline release activate 5"
}

func (c *releaseActivate) Run(ctx context.Context, t *Terminal) error {
	code, err := parseCode(c.Code)
	if err != nil {
		return err
	}
	return decideRelease(ctx, t, c.server, c.JSON, "active", request.VersionActivate, request.ActivateVersion{Code: code})
}

type releaseWithdraw struct {
	server
	asJSON
	Code string `arg:"" help:"Version code."`
}

func (releaseWithdraw) Help() string {
	return "If it was the active one, apps are told that there is none. Its version code is never used again.\n\nExample:\n\n    trunkline release withdraw 5"
}

func (c *releaseWithdraw) Run(ctx context.Context, t *Terminal) error {
	code, err := parseCode(c.Code)
	if err != nil {
		return err
	}
	return decideRelease(ctx, t, c.server, c.JSON, "withdrawn", request.VersionWithdraw, request.WithdrawVersion{Code: code})
}

func decideRelease[Q any](ctx context.Context, t *Terminal, s server, asJSON bool, done, subject string, q Q) error {
	b, closeConn, err := s.dial()
	if err != nil {
		return err
	}
	defer closeConn()
	v, err := call[request.AppVersion](ctx, b, subject, q)
	if err != nil {
		return err
	}
	if asJSON {
		return t.printJSON(v)
	}
	return t.printLine("%s (code %v) is %s", v.Version, v.Code, done)
}

type releaseVerify struct {
	server
	asJSON
}

func (releaseVerify) Help() string {
	return "Exits 1 when a file is damaged or missing.\n\nExample:\n\n    trunkline release verify"
}

// verified says how a release's file is.
type verified struct {
	Code    streams.VersionCode `json:"code"`
	Version string              `json:"version"`
	Whole   bool                `json:"whole"`
	Problem string              `json:"problem,omitempty"`
}

func (c *releaseVerify) Run(ctx context.Context, t *Terminal) error {
	versions, b, closeConn, err := c.versions(ctx)
	if err != nil {
		return err
	}
	defer closeConn()
	store := object.Open(b, streams.ApksBucket)
	results, bad := []verified{}, []string{}
	for _, v := range versions {
		if v.Withdrawn {
			continue
		}
		result := verified{Code: v.Code, Version: v.Version, Whole: true}
		err := verifyRelease(ctx, t, store, v)
		if errors.Is(err, object.ErrDamaged) || errors.Is(err, object.ErrNotFound) {
			result.Whole, result.Problem = false, err.Error()
			bad = append(bad, v.Code.String())
		} else if err != nil {
			return err
		}
		results = append(results, result)
	}
	if c.JSON {
		err = t.printJSON(results)
	} else {
		var p table.Table
		p.Row("CODE", "VERSION", "FILE")
		for _, r := range results {
			p.Row(r.Code, r.Version, r.result())
		}
		err = p.Print(t.Out)
	}
	if err == nil && len(bad) > 0 {
		err = fmt.Errorf("the files of version code %s are damaged: withdraw them, and publish them again under new codes", strings.Join(bad, ", "))
	}
	return err
}

func (v verified) result() string {
	if v.Whole {
		return "whole"
	}
	return "damaged: " + v.Problem
}

func verifyRelease(ctx context.Context, t *Terminal, store *object.Store, v request.AppVersion) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	file, err := store.Find(ctx, v.Object)
	if err != nil {
		return err
	}
	if file.SHA256 != v.SHA256 || file.Size != v.Size {
		return fmt.Errorf("%w: its description is not the release's", object.ErrDamaged)
	}
	bar := t.bar(v.Size, "reading "+v.Version)
	defer bar.end()
	return store.Read(ctx, file, io.Discard, bar.tell)
}
