package dispatcher

import (
	"testing"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// Where very many accounts store much, ingresses are told of those that store most.
func TestBroadcastIsBounded(t *testing.T) {
	found := map[streams.AccountID]request.Storage{}
	for i := range 2 * maxBroadcast {
		a := streams.AccountID(i + 1)
		found[a] = request.Storage{Account: a, Enqueue: 70, Status: 71 + i%2}
	}
	all := most(found)
	if len(all) != maxBroadcast {
		t.Fatalf("got %d", len(all))
	}
	for i, one := range all {
		if one.Status != 72 || one.Account != streams.AccountID(2*i+2) {
			t.Fatalf("number %d is %+v", i, one)
		}
	}
}
