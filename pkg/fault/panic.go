package fault

import (
	"errors"
	"fmt"
	"runtime"
)

// OfPanic says what a panic was in words that may be logged: the text of an error of the runtime. Any other value may
// hold what must not be logged, so only its type is named.
func OfPanic(v any) string {
	var broken runtime.Error
	if err, ok := v.(error); ok && errors.As(err, &broken) {
		return broken.Error()
	}
	return fmt.Sprintf("%T", v)
}
