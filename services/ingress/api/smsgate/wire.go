package smsgate

import "encoding/json"

// sendIn is the body of POST messages. Null is the same as no value.
type sendIn struct {
	ID           *string `json:"id"`
	DeviceID     *string `json:"deviceId"`
	Message      *string `json:"message"` // as textMessage, from before there was one
	TextMessage  *textIn `json:"textMessage"`
	DataMessage  *dataIn `json:"dataMessage"`
	PhoneNumbers texts   `json:"phoneNumbers"`
	IsEncrypted  bool    `json:"isEncrypted"`
	SIMNumber    *int    `json:"simNumber"`
	Receipt      *bool   `json:"withDeliveryReport"`
	Priority     int     `json:"priority"`
	TTL          *uint64 `json:"ttl"` // seconds
	ValidUntil   *string `json:"validUntil"`
	ScheduleAt   *string `json:"scheduleAt"`
}

type textIn struct {
	Text string `json:"text"`
}

type dataIn struct {
	Data string `json:"data"` // base64
	Port int    `json:"port"`
}

// messageOut is a group of messages. Its first fields are in the order that the documents of the API show.
type messageOut struct {
	ID          string            `json:"id"`
	State       string            `json:"state"`
	CreatedAt   string            `json:"createdAt"`
	Recipients  []recipientOut    `json:"recipients"`
	DeviceID    string            `json:"deviceId"`
	IsHashed    bool              `json:"isHashed"` // never: numbers and texts are kept as they are
	IsEncrypted bool              `json:"isEncrypted"`
	States      map[string]string `json:"states"` // when it first came to each
	TextMessage *textOut          `json:"textMessage,omitempty"`
	DataMessage *dataOut          `json:"dataMessage,omitempty"`
}

type recipientOut struct {
	PhoneNumber string          `json:"phoneNumber"`
	State       string          `json:"state"`
	Error       json.RawMessage `json:"error,omitempty"` // a text or null
}

type textOut struct {
	Text string `json:"text"`
}

type dataOut struct {
	Data string `json:"data"`
	Port int    `json:"port"`
}

// sessionIn is the body of POST auth/token.
type sessionIn struct {
	TTL    uint64 `json:"ttl"` // seconds
	Scopes texts  `json:"scopes"`
}

type tokensOut struct {
	ID           string `json:"id"`
	TokenType    string `json:"token_type"`
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	ExpiresAt    string `json:"expires_at"`
}

type deviceOut struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	CreatedAt string `json:"createdAt"`
	UpdatedAt string `json:"updatedAt"`
	LastSeen  string `json:"lastSeen"`
}

// webhookIn is the body of POST webhooks. The documents of the API show device_id, its clients say deviceId.
type webhookIn struct {
	ID       *string `json:"id"`
	DeviceID *string `json:"deviceId"`
	Device   *string `json:"device_id"`
	URL      string  `json:"url"`
	Event    string  `json:"event"`
}

type webhookOut struct {
	ID       string  `json:"id"`
	DeviceID *string `json:"deviceId"`
	URL      string  `json:"url"`
	Event    string  `json:"event"`
}

// refreshIn is the body of POST inbox/refresh and of its older forms.
type refreshIn struct {
	Since        *string `json:"since"`
	Until        *string `json:"until"`
	DeviceID     *string `json:"deviceId"`
	MessageTypes texts   `json:"messageTypes"`
	Trigger      *bool   `json:"triggerWebhooks"`
	Delivery     *string `json:"webhookDelivery"`
}

// faultOut is the answer to a request that was rejected.
type faultOut struct {
	Message string `json:"message"`
}
