package projection_test

import (
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

func TestFoldsWhateverInterruptsIt(t *testing.T) {
	b := bustest.New(t)
	makeStreams(t, b)
	path := filepath.Join(t.TempDir(), "tally.db")
	rnd := rand.New(rand.NewPCG(1, 2))
	const rounds, each = 30, 60
	for range rounds {
		publishMany(t, b, each)
		f := start(t, path, b, tally{}, projection.Options{BatchMax: 1 + rnd.IntN(40)})
		stream := streams[rnd.IntN(2)]
		f.await(stream, min(f.Cursor(stream)+rnd.Uint64N(3*each), lastSeq(t, b, stream)))
		f.stop()
	}
	f := start(t, path, b, tally{}, projection.Options{})
	f.catchUp(b)
	want := map[string]int{}
	for _, stream := range streams {
		for _, subject := range []string{".a", ".b", ".c"} {
			want[stream+subject] = rounds * each / 3
		}
	}
	if diff := cmp.Diff(want, counts(t, f.File)); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	if got, want := dump(t, f.File), foldAnew(t, b, tally{}); got != want {
		t.Errorf("dump after interruptions differs from a fold in one go")
	}
}
