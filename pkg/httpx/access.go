package httpx

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/secret"
)

// RequestIDHeader is a header of every answer. Its value is in the access log's line about the request. A value that
// the client sends is ignored: it could be anything, even a token.
const RequestIDHeader = "X-Request-ID"

// Limit: 100 lines a second in the log about requests that failed. Beyond it: every 1,000th is logged.
// Used up by: whoever makes requests fail. Hurts: the operator, whose log leaves lines out; no request waits.
// Test: TestAccessLogSamplesWarnings.
const warnings = 100

// AccessOptions are the inputs of AccessLog.
type AccessOptions struct {
	Log   *zap.Logger      // required
	Now   func() time.Time // nil: time.Now
	NewID func() string    // of a request; nil: random
}

// AccessLog logs one line per request: method, route template, status, duration in seconds and bytes answered. It
// never logs a body, a query, a header, or a parameter in the path: any of them may hold a secret. A status of 500 or
// more is a warning with the last error that the handler gave to gin's Context.Error. All others are debug, and so are
// requests whose client has left and the answers of Health, for which 503 is no failure. The first 100 warnings of a
// second are logged, and then every 1,000th.
func AccessLog(o AccessOptions) gin.HandlerFunc {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.NewID == nil {
		o.NewID = randomID
	}
	// Without sampling, a flood of rejected requests would fill the disk with its log.
	sampled := o.Log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(core, time.Second, warnings, 10*warnings)
	}))
	return func(c *gin.Context) {
		start, id := o.Now(), o.NewID()
		c.Header(RequestIDHeader, id)
		c.Next()

		status, level, log := c.Writer.Status(), zap.DebugLevel, o.Log
		if status >= http.StatusInternalServerError && status != http.StatusNotImplemented && c.Request.Context().Err() == nil && !isHealth(c) {
			level, log = zap.WarnLevel, sampled
		}
		entry := log.Check(level, "request")
		if entry == nil {
			return
		}
		fields := []zap.Field{
			zap.String("id", id),
			zap.String("method", c.Request.Method),
			zap.String("route", route(c)),
			zap.Int("status", status),
			zap.Duration("duration", o.Now().Sub(start)),
			zap.Int("bytes", max(c.Writer.Size(), 0)),
		}
		if last := c.Errors.Last(); last != nil && level == zap.WarnLevel {
			fields = append(fields, zap.Error(last.Err))
		}
		entry.Write(fields...)
	}
}

func isHealth(c *gin.Context) bool { return strings.Contains(c.FullPath(), "/health") }

// route gives the template, not the path: parameters may be tokens or ids. A path without a route may hold anything,
// so it is not logged at all.
func route(c *gin.Context) string {
	if c.FullPath() == "" {
		return "none"
	}
	return secret.Mask(c.FullPath())
}

func randomID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// Recover turns a panic into an answer. answer writes it in the dialect's form; nil means a 500 without a body. Use it
// after AccessLog. The log gets the stack, and the panic as far as it can hold no secret.
func Recover(log *zap.Logger, answer func(*gin.Context)) gin.HandlerFunc {
	return func(c *gin.Context) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			err, isError := v.(error)
			if isError && errors.Is(err, http.ErrAbortHandler) {
				panic(v) // net/http's own way to cut a connection
			}
			log.Error("panic", zap.String("id", c.Writer.Header().Get(RequestIDHeader)), zap.String("route", route(c)),
				zap.String("panic", fault.OfPanic(v)), zap.ByteString("stack", debug.Stack()))
			switch {
			case c.Writer.Written():
				c.Abort()
				panic(http.ErrAbortHandler) // half an answer must not look whole
			case answer != nil:
				c.Abort()
				answer(c)
			default:
				c.AbortWithStatus(http.StatusInternalServerError)
			}
		}()
		c.Next()
	}
}
