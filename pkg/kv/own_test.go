package kv

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

func TestDeleteOwn(t *testing.T) {
	b := bustest.New(t)
	bucket, err := b.JS.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "claims", Storage: jetstream.MemoryStorage})
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{"another's", "mine", "mine"} { // and renewed
		if _, err := bucket.PutString(t.Context(), "key", value); err != nil {
			t.Fatal(err)
		}
	}
	if err := deleteOwn(t.Context(), bucket, "key", []byte("another's")); err != nil {
		t.Error(err)
	}
	if _, err := bucket.Get(t.Context(), "key"); err != nil {
		t.Errorf("deleted for another: %v", err)
	}
	for range 2 {
		if err := deleteOwn(t.Context(), bucket, "key", []byte("mine")); err != nil {
			t.Error(err)
		}
		if _, err := bucket.Get(t.Context(), "key"); !errors.Is(err, jetstream.ErrKeyNotFound) {
			t.Errorf("not deleted for its owner: %v", err)
		}
	}
	b.Conn.Close()
	if err := deleteOwn(t.Context(), bucket, "key", []byte("mine")); err == nil {
		t.Error("without a connection: got no error")
	}
}
