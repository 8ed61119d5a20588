package streams_test

import (
	"testing"

	"github.com/trunkline-sms/trunkline/streams"
)

func TestParseIngressClaim(t *testing.T) {
	for _, instance := range []int{0, 7, streams.MaxInstance} {
		if got, err := streams.ParseIngressClaim(streams.IngressClaim(instance)); err != nil || got != instance {
			t.Errorf("%d: got %d, %v", instance, got, err)
		}
	}
	for _, key := range []string{"", "ingress.", "ingress.x", "ingress.-1", "ingress.+1", "ingress.01", "ingress.1024", "ingress.1.2", "1", streams.QuotaClaim} {
		if got, err := streams.ParseIngressClaim(key); err == nil {
			t.Errorf("%q: got %d, want an error", key, got)
		}
	}
}
