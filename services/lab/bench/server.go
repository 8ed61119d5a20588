package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/pprof"
)

// The roles of a server process.
const (
	roleProduct = "product" // the whole product
	roleBare    = "bare"    // a handler without auth, quota and projections
	roleEngine  = "engine"  // the engine alone
)

// Serve is a server process of a benchmark: the one that Options.Server gives
// for that role and directory. It does what it is told on in, until in or ctx
// ends.
func Serve(ctx context.Context, role, dir string, in io.Reader, out io.Writer) error {
	o := &overseer{answers: json.NewEncoder(out), orders: make(chan order)}
	begin, ok := map[string]func(context.Context, string, func(context.Context, server) error) error{
		roleProduct: runProduct, roleBare: runBare, roleEngine: runEngine,
	}[role]
	if !ok {
		return o.answers.Encode(hello{Error: fmt.Sprintf("role %q: there is no such role", role)})
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	// The end of the orders must be noticed in the middle of one, so somebody
	// always reads. It ends with the process.
	go func() {
		defer stop()
		orders := json.NewDecoder(in)
		for {
			var q order
			if orders.Decode(&q) != nil {
				return
			}
			select {
			case o.orders <- q:
			case <-ctx.Done():
				return
			}
		}
	}()
	err := begin(ctx, dir, o.obey)
	if !o.greeted && err != nil {
		err = errors.Join(err, o.answers.Encode(hello{Error: err.Error()}))
	}
	if ctx.Err() != nil {
		return nil // whoever told us to stop needs no reason
	}
	return err
}

// server is a role that runs.
type server interface {
	hello() hello
	do(ctx context.Context, q order) (answer, error)
}

// overseer hands orders to a server and its answers back.
type overseer struct {
	answers *json.Encoder
	orders  chan order
	greeted bool
	profile *os.File
}

func (o *overseer) obey(ctx context.Context, s server) error {
	o.greeted = true
	if err := o.answers.Encode(s.hello()); err != nil {
		return fmt.Errorf("say hello: %w", err)
	}
	for {
		var q order
		select {
		case <-ctx.Done():
			return o.endProfile()
		case q = <-o.orders:
		}
		a, err := o.do(ctx, s, q)
		if err != nil {
			a = answer{Error: err.Error()}
		}
		if err := o.answers.Encode(a); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
}

func (o *overseer) do(ctx context.Context, s server, q order) (answer, error) {
	switch q.Do {
	case doUse:
		now, err := used()
		return answer{Use: now}, err
	case doProfile:
		if q.File == "" {
			return answer{}, o.endProfile()
		}
		return answer{}, o.beginProfile(q.File)
	}
	return s.do(ctx, q)
}

func (o *overseer) beginProfile(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write profile: %w", err)
	}
	o.profile = file
	return pprof.StartCPUProfile(file)
}

func (o *overseer) endProfile() error {
	if o.profile == nil {
		return nil
	}
	pprof.StopCPUProfile()
	err := o.profile.Close()
	o.profile = nil
	return err
}

func unknown(q order) (answer, error) {
	return answer{}, fmt.Errorf("%q is no order for this role", q.Do)
}
