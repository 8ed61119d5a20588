package natsd

import (
	"fmt"
	"os"
	"path/filepath"

	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/natsd/filestore"
)

// damagedDir has copies of the damaged bytes that were set aside.
const damagedDir = "damaged"

// checkStreams looks for damaged records in all streams, and sets them aside: the
// engine would drop everything behind them. It reads all files, as the engine does
// at a start after a crash.
func (s *Server) checkStreams() error { return filestore.EachBlock(s.storeDir(), s.setAside) }

func (s *Server) setAside(b *filestore.Block) error {
	for _, d := range b.Damages() {
		kept := filepath.Join(s.dir, engineDir, damagedDir, fmt.Sprintf("%s-%d-%d", b.Stream, b.Index, d.From))
		err := makePrivate(filepath.Dir(kept))
		if err == nil {
			err = os.WriteFile(kept, b.Bytes(d), 0o600)
		}
		if err == nil {
			err = b.SetAside(d)
		}
		if err != nil {
			return fmt.Errorf("set aside what is damaged of stream %s: %w", b.Stream, err)
		}
		s.log.Error("the disk has damaged a stream: what stood between two of its messages is lost, what follows was kept",
			zap.String("stream", b.Stream), zap.Uint64("before", d.Before), zap.Uint64("after", d.After),
			zap.String("file", b.Path), zap.Int("offset", d.From), zap.String("kept", kept))
	}
	return nil
}
