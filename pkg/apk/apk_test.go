package apk_test

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/trunkline-sms/trunkline/pkg/apk"
	"github.com/trunkline-sms/trunkline/pkg/testkit/apktest"
)

func read(content []byte) (apk.Info, error) {
	return apk.Read(bytes.NewReader(content), int64(len(content)))
}

func TestRead(t *testing.T) {
	long := strings.Repeat("1.", 31) + "é"
	for name, app := range map[string]apktest.App{
		"UTF-16":        {Package: "org.example.gateway", Version: "1.2.0", Code: 5},
		"UTF-8":         {Package: "org.example.gateway", Version: "1.2.0", Code: 5, UTF8: true},
		"long texts":    {Package: "org." + strings.Repeat("x", 200), Version: long, Code: 2_100_000_000, UTF8: true},
		"a long code":   {Package: "a.b", Version: "1", Code: 7<<32 | 9},
		"a larger file": {Package: "a.b", Version: "1", Code: 1, Padding: 3 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := read(apktest.Build(app))
			if want := (apk.Info{Package: app.Package, Version: app.Version, Code: app.Code}); err != nil || got != want {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
		})
	}
}

// The builder of the tests and Android's own tool agree.
func TestRead_Aapt(t *testing.T) {
	aapt, err := exec.LookPath("aapt")
	if err != nil {
		t.Skip("there is no aapt")
	}
	file := filepath.Join(t.TempDir(), "app.apk")
	if err := os.WriteFile(file, apktest.Build(apktest.App{}), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := exec.Command(aapt, "dump", "badging", file).CombinedOutput()
	want := "package: name='org.example.gateway' versionCode='5' versionName='1.2.0'"
	if !strings.Contains(string(got), want) {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}

func TestRead_Refuses(t *testing.T) {
	whole := apktest.Build(apktest.App{Padding: 1000})
	text := apktest.Build(apktest.App{Manifest: []byte(`<manifest package="a.b"/>`)})
	withoutManifest := zipped(t, map[string]string{"classes.dex": "dex", "META-INF/CERT.RSA": "x"})
	tests := map[string]struct {
		content []byte
		want    string
	}{
		"nothing":               {nil, "does not end as one"},
		"a text":                {[]byte(strings.Repeat("no app at all ", 1000)), "does not end as one"},
		"cut off":               {whole[:len(whole)-100], "does not end as one"},
		"its begin is missing":  {whole[200:], "its directory"},
		"a zip of other things": {withoutManifest, "it has no AndroidManifest.xml"},
		"a manifest in text":    {text, "not in Android's binary form"},
		"two manifests":         {apktest.Build(apktest.App{Twice: true}), "two manifests"},
		"not signed":            {apktest.Build(apktest.App{Unsigned: true}), "not signed"},
		"no package":            {apktest.Build(apktest.App{Package: "gateway"}), "its package"},
		"a long package":        {apktest.Build(apktest.App{Package: "org." + strings.Repeat("a", 252)}), "its package"},
		"no code":               {apktest.Build(apktest.App{Code: -1 << 63}), "its version code"},
		"a version of escapes":  {apktest.Build(apktest.App{Version: "1\x1b[2J"}), "its version name"},
		"a long version":        {apktest.Build(apktest.App{Version: strings.Repeat("1", 65)}), "its version name"},
		"a bomb":                {bomb(t, 1<<30), "manifest has more than"},
		"a bomb that lies":      {bomb(t, 1000), "damaged"},
		"a flipped bit":         {flip(whole, bytes.Index(whole, []byte("AndroidManifest.xml"))+40), "its manifest"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := read(tt.content)
			if !errors.Is(err, apk.ErrNoAPK) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want ErrNoAPK with %q", err, tt.want)
			}
		})
	}
}

func flip(content []byte, at int) []byte {
	flipped := bytes.Clone(content)
	flipped[at] ^= 1
	return flipped
}

func zipped(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, content := range files {
		w, err := z.Create(name)
		if err == nil {
			_, err = w.Write([]byte(content))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// bomb is an app whose manifest unpacks to 32 MiB, and says that it has so
// many bytes.
func bomb(t *testing.T, claimed uint64) []byte {
	t.Helper()
	var packed bytes.Buffer
	w, err := flate.NewWriter(&packed, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	zeros, sum := make([]byte, 1<<20), crc32.NewIEEE()
	for range 1 << 5 {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
		_, _ = sum.Write(zeros)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	raw, err := z.CreateRaw(&zip.FileHeader{
		Name: "AndroidManifest.xml", Method: zip.Deflate, CRC32: sum.Sum32(),
		CompressedSize64: uint64(packed.Len()), UncompressedSize64: claimed,
	})
	if err == nil {
		_, err = raw.Write(packed.Bytes())
	}
	if err = errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// However large a file claims to be, and however much it holds, reading it
// takes little memory.
func TestRead_BoundedMemory(t *testing.T) {
	// A directory of as many entries as its bound lets through.
	entries := make([]byte, 0, 16<<20)
	header := make([]byte, 46)
	copy(header, "PK\x01\x02")
	for len(entries)+len(header) <= 16<<20 {
		entries = append(entries, header...)
	}
	end := make([]byte, 22)
	copy(end, "PK\x05\x06")
	binary.LittleEndian.PutUint32(end[12:], uint32(len(entries)))
	for name, content := range map[string][]byte{
		"a bomb":             bomb(t, 4<<20),
		"a bomb that claims": bomb(t, 1<<31),
		"many entries":       append(entries, end...),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if _, err := read(content); !errors.Is(err, apk.ErrNoAPK) {
				t.Errorf("got %v, want ErrNoAPK", err)
			}
			runtime.ReadMemStats(&after)
			// The directory, the manifest, and what growing to it leaves behind.
			if got := after.TotalAlloc - before.TotalAlloc; got > 64<<20 {
				t.Errorf("it took %d bytes, want less than 64 MiB", got)
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	f.Add(apktest.Build(apktest.App{}))
	f.Add(apktest.Build(apktest.App{UTF8: true, Unsigned: true}))
	f.Add([]byte("PK\x05\x06" + strings.Repeat("\x00", 18)))
	f.Fuzz(func(t *testing.T, content []byte) {
		info, err := read(content)
		if err != nil && !errors.Is(err, apk.ErrNoAPK) {
			t.Errorf("got error %v, want ErrNoAPK", err)
		}
		if err == nil && (info.Package == "" || info.Version == "" || info.Code < 1) {
			t.Errorf("got %+v", info)
		}
	})
}

func TestRead_TooLarge(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "large.apk"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(apk.MaxSize + 1); err != nil {
		t.Fatal(err)
	}
	if _, err := apk.Read(file, apk.MaxSize+1); !errors.Is(err, apk.ErrNoAPK) {
		t.Errorf("got %v, want ErrNoAPK", err)
	}
}
