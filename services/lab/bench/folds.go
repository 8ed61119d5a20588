package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// probeDevice is the phone of the probe's account.
const probeDevice = "probe"

// awaitFolds waits until a product has folded all that was stored before: a pull
// answers with a message that was posted last only then.
func (r *run) awaitFolds(ctx context.Context, product *process) error {
	c, err := dial(ctx, product.hello.Address)
	if err != nil {
		return err
	}
	defer c.close()
	as := product.caller(probeAccount)
	post, err := as.post(1)
	if err != nil {
		return err
	}
	if _, err := c.do(ctx, post); err != nil {
		return fmt.Errorf("wait for the folds: %w", err)
	}
	for {
		page, err := c.do(ctx, as.pull(probeDevice, 200, 1))
		var refused *refusal
		if errors.As(err, &refused) && refused.status >= http.StatusInternalServerError && ctx.Err() == nil {
			continue // it is far behind, and answers after some time
		}
		if err != nil {
			return fmt.Errorf("wait for the folds: %w", err)
		}
		report, messages, err := as.report(probeDevice, page)
		switch {
		case err != nil:
			return fmt.Errorf("wait for the folds: %w", err)
		case messages == 0:
			continue
		}
		if _, err := c.do(ctx, report); err != nil {
			return fmt.Errorf("wait for the folds: %w", err)
		}
		return nil
	}
}
