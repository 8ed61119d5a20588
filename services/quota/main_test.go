package quota

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	holdEngineTime()
	goleak.VerifyTestMain(m)
}
