package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"golang.org/x/sync/errgroup"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/natsd"
	"github.com/trunkline-sms/trunkline/services/node"
	"github.com/trunkline-sms/trunkline/streams"
)

// bare is the ceiling of accepting over HTTP: a handler that reads the same
// JSON and stores the same events by group commit, and nothing else. It checks
// neither token nor message, asks for no quota, and nobody folds what it stores.
type bare struct {
	store    *store
	greeting hello
}

func runBare(ctx context.Context, dir string, obey func(context.Context, server) error) error {
	return withEngine(ctx, dir, func(b *bus.Bus) error {
		s := &bare{}
		for i := range accountCount {
			id := streams.AccountIDOf(accountName(i))
			s.greeting.Accounts = append(s.greeting.Accounts, id)
			s.greeting.Tokens = append(s.greeting.Tokens, strconv.Itoa(i))
		}
		s.store = newStore(b, s.greeting.Accounts)
		return s.store.while(ctx, func(ctx context.Context) error { return s.serve(ctx, obey) })
	})
}

func (s *bare) serve(ctx context.Context, obey func(context.Context, server) error) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s.greeting.Address = listener.Addr().String()
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	r.POST("/api/:token/queue", s.queue)
	server := &http.Server{Handler: r, ReadHeaderTimeout: time.Minute}
	var g errgroup.Group
	g.Go(func() error { return server.Serve(listener) })
	err = obey(ctx, s)
	closed := server.Close()
	if failed := g.Wait(); !errors.Is(failed, http.ErrServerClosed) {
		err = errors.Join(err, failed)
	}
	return errors.Join(err, closed)
}

func (s *bare) queue(c *gin.Context) {
	var messages []message
	account, err := strconv.Atoi(c.Param("token"))
	if err == nil {
		err = json.NewDecoder(c.Request.Body).Decode(&messages)
	}
	if err != nil || account >= len(s.greeting.Accounts) {
		c.Status(http.StatusBadRequest)
		return
	}
	if err := s.store.add(c.Request.Context(), s.greeting.Accounts[account], messages); err != nil {
		c.Status(http.StatusServiceUnavailable)
		return
	}
	c.Data(http.StatusOK, "application/json", fmt.Appendf(nil, `{"queued":%d}`, len(messages)))
}

func (s *bare) hello() hello { return s.greeting }

func (s *bare) do(_ context.Context, q order) (answer, error) { return unknown(q) }

// withEngine runs f beside an engine like the product's, with the same streams.
func withEngine(ctx context.Context, dir string, f func(*bus.Bus) error) error {
	cfg := node.DefaultConfig().Engine
	engine, err := natsd.Start(natsd.Options{Dir: dir, Durability: cfg.Durability, MaxStore: int64(cfg.MaxStore)})
	if err != nil {
		return err
	}
	defer engine.Stop()
	conn, err := engine.Connect("bench")
	if err != nil {
		return err
	}
	b, err := bus.New(conn)
	if err != nil {
		return err
	}
	err = streams.Ensure(ctx, b.JS, streams.Deployment{
		Shards: streams.Shards(cfg.Shards), Replicas: 1,
		EnqueueMaxBytes: int64(cfg.EnqueueMaxBytes), StatusMaxBytes: int64(cfg.StatusMaxBytes),
	}, true)
	if err != nil {
		return err
	}
	return f(b)
}
