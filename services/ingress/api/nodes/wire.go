package nodes

import "github.com/trunkline-sms/trunkline/pkg/secret"

// sendIn is the body of POST send-sms.
type sendIn struct {
	DeviceUsername string          `json:"deviceUsername"`
	Password       secret.String   `json:"password"`
	PhoneNumbers   []secret.String `json:"phoneNumbers"`
	Message        secret.String   `json:"message"`
	Priority       *int            `json:"priority"`
}

// sentOut is the answer of POST send-sms.
type sentOut struct {
	Message         string `json:"message"`
	MessageID       uint64 `json:"messageId"`
	DeviceOnline    bool   `json:"deviceOnline"`
	SentImmediately bool   `json:"sentImmediately"`
}

// healthOut is the answer of GET health.
type healthOut struct {
	Status           string `json:"status"`
	Timestamp        string `json:"timestamp"`
	SSL              bool   `json:"ssl"`
	Encryption       string `json:"encryption"`
	ConnectedDevices int    `json:"connectedDevices"`
}

// faultOut is the answer to a request that was rejected.
type faultOut struct {
	Error string `json:"error"`
}
