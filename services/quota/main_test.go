package quota

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// The ticker that simulated engines share stays with the process.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}
