package quota

import (
	"context"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

const version = "1.0.0"

// serve answers requests while this instance leads. life lasts longer, see
// bus.ServeOptions.
func (q *Quota) serve(ctx, life context.Context) error {
	return q.bus.Serve(ctx, bus.ServeOptions{
		Name:        "quota",
		Life:        life,
		Version:     version,
		Description: "Grants room under the accounts' monthly limits",
		Endpoints: []bus.Endpoint{
			{Subject: request.QuotaReserve, Handler: bus.Handle(q.reserve)},
			{Subject: request.QuotaRelease, Handler: bus.Handle(q.release)},
			{Subject: request.QuotaUsage, Handler: bus.Handle(q.usage)},
		},
		Log: q.log,
	})
}

// serveProjection answers requests about the projection, leading or not.
func (q *Quota) serveProjection(ctx context.Context) error {
	return q.bus.Serve(ctx, bus.ServeOptions{
		Name:        "projection-" + Projection,
		Version:     version,
		Description: "Verifies, rebuilds and dumps quota's projection",
		Endpoints:   q.file.Endpoints(Projection),
		Log:         q.log,
	})
}

func (q *Quota) reserve(_ context.Context, r request.Reserve) (request.Grant, error) {
	switch {
	case r.Account == 0:
		return request.Grant{}, fault.New(fault.Invalid, "invalid_account", "A reservation needs an account")
	case !countable(r.Count):
		return request.Grant{}, fault.New(fault.Invalid, "invalid_count", "A reservation is for 1 to 1000 messages")
	case r.Limit <= 0:
		return request.Grant{}, fault.New(fault.Invalid, "invalid_limit", "An account without a limit needs no reservation")
	case r.Instance < 0 || r.Instance > streams.MaxInstance:
		return request.Grant{}, fault.New(fault.Invalid, "invalid_instance", "There is no such instance of ingress")
	}
	given, err := q.ledger.reserve(r)
	if err != nil {
		q.metrics.refused(err)
		return request.Grant{}, err
	}
	q.metrics.grants.Inc()
	return given, nil
}

func (q *Quota) release(_ context.Context, r request.Release) (request.Released, error) {
	q.ledger.release(r.Grant)
	return request.Released{}, nil
}

func (q *Quota) usage(_ context.Context, r request.UsageOf) (request.Usage, error) {
	if err := q.file.Err(); err != nil {
		return request.Usage{}, err
	}
	return q.ledger.usage(r.Account)
}

// lagEvery is how often the projection's lag is measured.
const lagEvery = 10 * time.Second

func (q *Quota) measureLag(ctx context.Context) error {
	for {
		if err := clock.Sleep(ctx, lagEvery); err != nil {
			return nil
		}
		lag, err := q.file.Lag(ctx)
		if err != nil {
			continue // the fold logs what is wrong
		}
		total := uint64(0)
		for _, events := range lag {
			total += events
		}
		q.metrics.lag.Set(float64(total))
	}
}
