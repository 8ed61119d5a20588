package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/trunkline-sms/trunkline/services/operator"
)

// healthCommand is for containers, which have no other program to ask with.
type healthCommand struct {
	URL string `arg:"" optional:"" default:"http://127.0.0.1:8080/health/ready" help:"What to ask (default http://127.0.0.1:8080/health/ready)."`
}

func (healthCommand) Help() string {
	return "Succeeds if the answer is 200.\n\nExample:\n\n    trunkline health http://127.0.0.1:8080/health/ready"
}

const healthWithin = 3 * time.Second

func (c *healthCommand) Run(ctx context.Context, _ *operator.Terminal) error {
	ctx, cancel := context.WithTimeout(ctx, healthWithin)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", c.URL, response.Status)
	}
	return nil
}
