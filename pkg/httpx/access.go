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

// RequestIDHeader is on every answer, and its value in every access log line. Clients' own values are not taken
// over: they could be anything, also a token.
const RequestIDHeader = "X-Request-ID"

// warnings is how many failed requests of a second are all logged. Used up by whoever makes requests fail:
// the operator's log leaves lines out, and nobody waits.
const warnings = 100

// AccessOptions are the inputs of AccessLog. Nil functions mean the real ones.
type AccessOptions struct {
	Log   *zap.Logger
	Now   func() time.Time
	NewID func() string
}

// AccessLog logs one line per request: method, route template, status, duration in seconds and bytes answered;
// never a body, a query, a header, or a parameter in the path. Statuses from 500 are warnings and name the last
// error the handler gave to gin's Context.Error; everything else is debug, also a request whose client left and what
// Health answers, for which 503 is no failure. Of the warnings of a second the first hundred are logged, and then every
// thousandth.
func AccessLog(o AccessOptions) gin.HandlerFunc {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.NewID == nil {
		o.NewID = randomID
	}
	// Under a load that is refused the log would fill the disk.
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

// route names the template, not the path: parameters may be tokens or ids. A path without a route may be anything.
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

// Recover turns a panic into an answer: answer writes it in the dialect's form, nil means a 500 without a body. It
// goes after AccessLog. The log gets the stack and what may be said of the panic.
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
