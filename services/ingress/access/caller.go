package access

import "github.com/trunkline-sms/trunkline/streams"

// Caller is who calls.
type Caller struct {
	Account    *streams.Account // shared: nobody changes it
	Subscribed bool             // whether the subscription allows enqueueing
	Login      string           // that it came with; empty: a token
	Device     streams.DeviceID // whose own login that is; zero: the account's
	Room       Room             // for what is answered; nil: there is no bound
}

// MayEnqueue is the fault for a caller without a subscription.
func (c Caller) MayEnqueue() error {
	if !c.Subscribed {
		return errSubscription
	}
	return nil
}

// Room is what the answers to an account may take up in memory. It is taken before a dispatcher is asked, since what has
// been leased cannot be rejected any more.
type Room interface {
	Weigh(bytes int64) error // takes so much more, or gives it back: a fault where there is no room
	Try(bytes int64) bool    // takes it if the account has little
	Keep(bytes int64)        // gives back what is held beyond that
}
