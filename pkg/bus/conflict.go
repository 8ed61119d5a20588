package bus

import (
	"errors"

	"github.com/nats-io/nats.go/jetstream"
)

// IsConflict says of a bucket's error that another write came first: one code on
// a single engine, another on a cluster.
func IsConflict(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == codeWrongLast || api.ErrorCode == codeWrongLastConstant)
}
