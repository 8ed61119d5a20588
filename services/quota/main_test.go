package quota

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// Each history has an engine of its own. -rapid.checks asks for more.
	_ = flag.Set("rapid.checks", "25")
	goleak.VerifyTestMain(m)
}
