package access

import "github.com/trunkline-sms/trunkline/streams"

// Caller is the account that makes a request, and how it was admitted.
type Caller struct {
	Account    *streams.Account // shared: nobody changes it
	Subscribed bool             // whether the subscription allows enqueueing
	Login      string           // that it came with; empty: a token
	Device     streams.DeviceID // the phone that the login belongs to; zero: it is the account's
	Room       Room             // for what is answered; nil: there is no bound
}

// MayEnqueue is the fault for a caller without a subscription.
func (c Caller) MayEnqueue() error {
	if !c.Subscribed {
		return errSubscription
	}
	return nil
}

// Room is the memory that answers to an account may take. It is taken before a dispatcher is asked: a page that has been
// leased cannot be rejected any more.
type Room interface {
	Weigh(bytes int64) error // takes so many bytes more, or gives back if below 0; a fault if there is no room
	Try(bytes int64) bool    // takes them if the account has few
	Keep(bytes int64)        // gives back what is held beyond that
}
