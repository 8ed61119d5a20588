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

// An account that has stored all it may stores no more, except what its phones report.
func TestShares(t *testing.T) {
	c := newMessages(t)
	account, other := &streams.Account{ID: account.ID}, &streams.Account{ID: streams.AccountIDOf("other")}
	tell := func(all ...request.Storage) {
		t.Helper()
		data, err := json.Marshal(request.StorageUse{Accounts: all})
		if err != nil {
			t.Fatal(err)
		}
		want := request.Storage{}
		if len(all) > 0 {
			want = all[0]
		}
		for c.storage.of(0, account.ID) != want { // until it is heard
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
	isRejected := func(err error) bool {
		return fault.Is(err, fault.Full) && fault.As(err).Code == "share_used" && fault.As(err).RetryAfter > 0
	}
	serve(t, c.bus, request.DispatcherPull(0), func(_ context.Context, _ request.Pull) (request.Pulled, error) { return request.Pulled{}, nil })
	for _, test := range []struct {
		storage         request.Storage
		noPost, noPull  bool
		near, over, top int
	}{
		{request.Storage{Enqueue: 70}, false, false, 1, 0, 70},
		{request.Storage{Enqueue: 90, EnqueueOver: true}, true, false, 1, 1, 90},
		{request.Storage{Status: 91, StatusOver: true}, true, true, 1, 1, 91},
		{request.Storage{Enqueue: 70, Status: 80}, false, false, 1, 0, 80},
	} {
		test.storage.Account = account.ID
		tell(test.storage)
		if err := enqueue(account); isRejected(err) != test.noPost || !test.noPost && err != nil {
			t.Errorf("%+v: posting: %v", test.storage, err)
		}
		if err := pull(account); isRejected(err) != test.noPull || !test.noPull && err != nil {
			t.Errorf("%+v: pulling: %v", test.storage, err)
		}
		if _, err := c.Report(t.Context(), reports(streams.Delivered)); err != nil {
			t.Errorf("%+v: reporting: %v", test.storage, err)
		}
		if err := enqueue(other); err != nil {
			t.Errorf("%+v: another posts: %v", test.storage, err)
		}
		if near, over, top := c.Stored(); near != test.near || over != test.over || top != test.top {
			t.Errorf("%+v: health has %d, %d, %d", test.storage, near, over, top)
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
