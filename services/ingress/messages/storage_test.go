package messages

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/services/ingress/access"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// Who holds its share of a stream stores no more, but what its phones report.
func TestShares(t *testing.T) {
	c := newMessages(t)
	account, other := &streams.Account{ID: account.ID}, &streams.Account{ID: streams.AccountIDOf("other")}
	tell := func(shares ...request.Storage) {
		t.Helper()
		data, err := json.Marshal(request.StorageUse{Accounts: shares})
		if err != nil {
			t.Fatal(err)
		}
		want := request.Storage{}
		if len(shares) > 0 {
			want = shares[0]
		}
		for c.storage.of(0, account.ID) != want { // shares until it is heard
			if err := c.bus.Conn.Publish(request.IngressStorage, data); err != nil {
				t.Fatal(err)
			}
			_ = clock.Sleep(t.Context(), time.Millisecond)
		}
	}
	enqueue := func(a *streams.Account) error {
		_, err := c.Enqueue(t.Context(), Enqueue{Caller: access.Caller{Account: a, Subscribed: true}, Drafts: []Draft{{Lane: streams.Lane{Priority: streams.Normal}}}})
		return err
	}
	pull := func(a *streams.Account) error {
		_, err := c.Pull(t.Context(), Pull{Caller: access.Caller{Account: a}, Limit: 1})
		return err
	}
	isShare := func(err error) bool {
		return fault.Is(err, fault.Full) && fault.As(err).Code == "share_used" && fault.As(err).RetryAfter > 0
	}
	serve(t, c.bus, request.DispatcherPull(0), func(_ context.Context, _ request.Pull) (request.Pulled, error) { return request.Pulled{}, nil })
	for _, test := range []struct {
		share           request.Storage
		noPost, noPull  bool
		near, over, top int
	}{
		{request.Storage{Enqueue: 70}, false, false, 1, 0, 70},
		{request.Storage{Enqueue: 90, EnqueueOver: true}, true, false, 1, 1, 90},
		{request.Storage{Status: 91, StatusOver: true}, true, true, 1, 1, 91},
		{request.Storage{Enqueue: 70, Status: 80}, false, false, 1, 0, 80},
	} {
		test.share.Account = account.ID
		tell(test.share)
		if err := enqueue(account); isShare(err) != test.noPost || !test.noPost && err != nil {
			t.Errorf("%+v: posting: %v", test.share, err)
		}
		if err := pull(account); isShare(err) != test.noPull || !test.noPull && err != nil {
			t.Errorf("%+v: pulling: %v", test.share, err)
		}
		if _, err := c.Report(t.Context(), reports(streams.Delivered)); err != nil {
			t.Errorf("%+v: reporting: %v", test.share, err)
		}
		if err := enqueue(other); err != nil {
			t.Errorf("%+v: another posts: %v", test.share, err)
		}
		if near, over, top := c.Stored(); near != test.near || over != test.over || top != test.top {
			t.Errorf("%+v: health is shares %d, %d, %d", test.share, near, over, top)
		}
	}
	tell()
	if err := enqueue(account); err != nil {
		t.Errorf("after room came back: %v", err)
	}
	if near, _, _ := c.Stored(); near != 0 {
		t.Errorf("%d accounts are near their share", near)
	}
}
