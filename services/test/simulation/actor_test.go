package simulation

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// actor is somebody who uses the product until told to stop.
type actor struct {
	*world
	rng  *rand.Rand
	name string
	own  *tenant
	over <-chan struct{}
}

func (a *actor) pause(mean time.Duration) bool {
	timer := time.NewTimer(time.Duration(a.rng.ExpFloat64() * float64(mean)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-a.over:
		return false
	}
}

type queueAnswer struct {
	Items []struct {
		Index int    `json:"index"`
		Hash  string `json:"hash"`
	} `json:"items"`
	Code string `json:"code"`
}

// send posts messages, some under a key, some twice, and repeats what got no
// answer.
func (a *actor) send() {
	number := 0
	for request := 0; a.pause(40 * time.Second); request++ {
		texts, numbers := []string{}, []int{}
		var body []map[string]string
		for range 1 + a.rng.IntN(12) {
			number++
			text := fmt.Sprintf("secret-text-%s-%d", a.name, number)
			texts, numbers = append(texts, text), append(numbers, number)
			body = append(body, map[string]string{"phone": "+40712345678", "message": text})
		}
		data, _ := json.Marshal(body)
		header := map[string]string{}
		keyed := a.rng.IntN(3) == 0
		if keyed {
			header["Idempotency-Key"] = fmt.Sprint(a.name, "-", request)
		}
		a.model.posted(a.own.name, a.name, texts, numbers, a.now())
		if keyed && a.rng.IntN(3) == 0 {
			var both sync.WaitGroup
			for range 2 {
				both.Go(func() { a.post(string(data), texts, header) })
			}
			both.Wait()
			continue
		}
		for known := a.post(string(data), texts, header); !known && keyed && a.pause(10*time.Second); {
			known = a.post(string(data), texts, header)
		}
	}
}

// post posts once, and says whether the outcome is known.
func (a *actor) post(body string, texts []string, header map[string]string) bool {
	status, answer := a.do("POST", "/api/"+a.own.token+"/queue", body, header, 40*time.Second)
	var got queueAnswer
	_ = json.Unmarshal([]byte(answer), &got)
	o, hashes := unknown, []string(nil)
	switch {
	case status == 200:
		o = accepted
		for _, item := range got.Items {
			hashes = append(hashes, item.Hash)
		}
		if len(hashes) != len(texts) {
			a.t.Errorf("%d of %d messages were accepted", len(hashes), len(texts))
			return true
		}
	case status == 0 || got.Code == "outcome_unknown" || status == 500:
	case len(header) > 0:
		return status == 429 // an earlier attempt may have been stored
	default:
		o = refused
	}
	a.model.answered(texts, hashes, o)
	return o != unknown
}

// plan posts messages with another dialect, each to be sent at a time and valid for one, as a sender that is somebody
// else for each: what is due earlier goes first.
func (a *actor) plan() {
	for n := 0; a.pause(30 * time.Second); n++ {
		text := fmt.Sprintf("secret-text-%s-%d", a.name, n)
		body := map[string]any{"phoneNumbers": []string{"+40712345678"}, "textMessage": map[string]string{"text": text}}
		var due, until time.Time
		if a.rng.IntN(3) > 0 {
			due = a.now().Add(time.Duration(1+a.rng.IntN(300)) * time.Second).Truncate(time.Second)
			body["scheduleAt"] = due.Format(time.RFC3339)
		}
		if a.rng.IntN(2) == 0 {
			until = a.now().Add(time.Duration(301+a.rng.IntN(600)) * time.Second).Truncate(time.Second)
			body["validUntil"] = until.Format(time.RFC3339)
		}
		name := ""
		if a.rng.IntN(2) == 0 {
			name = fmt.Sprint(a.name, "-", n)
			body["id"] = name
		}
		data, _ := json.Marshal(body)
		a.model.posted(a.own.name, text, []string{text}, []int{1}, a.now())
		a.model.scheduled(text, name, due, until)
		status, answer := a.do("POST", "/3rdparty/v1/messages", string(data), map[string]string{"Authorization": a.own.login}, 40*time.Second)
		var got struct{ Message string }
		_ = json.Unmarshal([]byte(answer), &got)
		o, hashes := refused, []string(nil)
		switch {
		case status == 202:
			o, hashes = accepted, []string{hashIn(answer)}
			if name != "" {
				hashes[0] = a.hashOf(a.own, name)
			}
		case status == 0 || status == 500 || got.Message == "It is not known whether this was stored":
			o = unknown
		}
		a.model.answered([]string{text}, hashes, o)
	}
}

// hashIn gives the id of the message in the answer of a post. Where the sender named the group it is not told.
func hashIn(answer string) string {
	var got struct{ ID string }
	_ = json.Unmarshal([]byte(answer), &got)
	if _, err := streams.ParseMessageID(got.ID); err != nil {
		return ""
	}
	return got.ID
}

// character is how a phone behaves.
type character struct {
	named       bool
	wait        time.Duration
	limit       int
	each        time.Duration // between two reports of a page; 0: all at once
	die, late   float64       // of its pages: never reported; reported after the lease
	twice, fail float64
	hangUp      float64 // of its pulls: gone before the answer
}

func drawCharacter(rng *rand.Rand) character {
	c := character{
		named: rng.IntN(3) > 0, wait: time.Duration(rng.IntN(3)) * 10 * time.Second, limit: 1 + rng.IntN(30),
		die: 0.1 * rng.Float64(), late: 0.1 * rng.Float64(), twice: 0.2 * rng.Float64(), fail: 0.3 * rng.Float64(),
	}
	if rng.IntN(2) == 0 {
		c.each = time.Duration(1+rng.IntN(20)) * time.Second
	}
	if rng.IntN(4) == 0 {
		c.hangUp = 0.2
	}
	return c
}

func (a *actor) chance(p float64) bool { return a.rng.Float64() < p }

// carry is a phone: it pulls, sends and reports.
func (a *actor) carry(c character) {
	var late sync.WaitGroup
	defer late.Wait()
	for a.pause(5 * time.Second) {
		p, texts, hashes := a.pull(c)
		if len(texts) == 0 {
			continue
		}
		switch {
		case a.chance(c.die):
			continue
		case a.chance(c.late):
			delay := a.own.lease + time.Duration(a.rng.IntN(120))*time.Second
			if !a.pause(delay) {
				return
			}
		}
		if c.each == 0 {
			a.report(c, p, texts, hashes)
			continue
		}
		for i := range texts {
			if !a.pause(c.each) {
				return
			}
			a.report(c, p, texts[i:i+1], hashes[i:i+1])
		}
	}
}

func (a *actor) pull(c character) (p *pageOf, texts, hashes []string) {
	path := fmt.Sprintf("/api/%s/get_messages?limit=%d&wait=%d", a.own.token, c.limit, int(c.wait.Seconds()))
	p = &pageOf{phone: a.name, named: c.named, asked: a.now(), lease: a.own.lease, policy: string(a.own.policy)}
	if c.named {
		path += "&device=" + a.name
	}
	within := c.wait + 20*time.Second
	if a.chance(c.hangUp) {
		within = time.Duration(a.rng.IntN(5000)) * time.Millisecond
		a.model.mu.Lock()
		a.model.disorder = true
		a.model.mu.Unlock()
	}
	status, body := a.do("GET", path, "", nil, within)
	if status != 200 {
		return p, nil, nil
	}
	var got []struct{ Text, Hash string }
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		a.t.Errorf("a pull's answer: %v", err)
	}
	for _, m := range got {
		texts, hashes = append(texts, m.Text), append(hashes, m.Hash)
	}
	if len(got) > c.limit {
		a.model.breach("phone %s got %d messages, it asked for %d", a.name, len(got), c.limit)
	}
	a.model.handedOut(p, a.own.name, texts, hashes, a.now())
	return p, texts, hashes
}

// toldWithin is how long an ingress asks what a report has changed.
const toldWithin = 2 * time.Second

// reportWithin is how long a phone waits for the answer to a report.
const reportWithin = 20 * time.Second

func (a *actor) report(c character, p *pageOf, texts, hashes []string) {
	states := make([]int, len(texts))
	var items []map[string]any
	for i := range texts {
		states[i] = 2
		if a.chance(c.fail) {
			states[i] = 3
		}
		items = append(items, map[string]any{"hash": hashes[i], "status": states[i]})
	}
	body := map[string]any{"messages": items}
	if c.named {
		body["device"] = a.name
	}
	data, _ := json.Marshal(body)
	times := 1
	if a.chance(c.twice) {
		times = 2
	}
	for range times {
		began := a.now()
		untouched := a.model.reporting(texts, began)
		status, answer := a.do("POST", "/api/"+a.own.token+"/status", string(data), nil, reportWithin)
		if status != 200 {
			continue // what became of it is not known
		}
		var got struct{ Updated int }
		_ = json.Unmarshal([]byte(answer), &got)
		// A dispatcher that cannot be asked in time changes nothing about the answer.
		whole := got.Updated == len(texts) && a.now().Sub(began) < toldWithin
		a.model.reported(p, texts, states, whole, untouched, began, a.now())
	}
}

// oversee is an operator: it looks, cancels and requeues.
func (a *actor) oversee() {
	shards := streams.Shards(a.shards)
	for a.pause(time.Minute) {
		own := a.tenants[a.rng.IntN(len(a.tenants))]
		shard := shards.Of(own.id)
		listed, ok := operate[request.Listed](a.world, request.DispatcherList(shard), request.List{Account: own.id, Limit: 200})
		if !ok || len(listed.Messages) == 0 {
			continue
		}
		var ids []streams.MessageID
		var hashes []string
		for range 1 + a.rng.IntN(5) {
			m := listed.Messages[a.rng.IntN(len(listed.Messages))]
			if !slices.Contains(ids, m.ID) {
				ids, hashes = append(ids, m.ID), append(hashes, m.ID.String())
			}
		}
		requeue, subject := a.rng.IntN(2) == 0, request.DispatcherCancel(shard)
		if requeue {
			subject = request.DispatcherRequeue(shard)
		}
		a.model.deciding(hashes, requeue)
		decided, ok := operate[request.Decided](a.world, subject, request.Decide{Account: own.id, Messages: ids})
		if !ok {
			continue
		}
		var changed []string
		for _, id := range decided.Changed {
			changed = append(changed, id.String())
		}
		a.model.decided(changed, requeue, a.now())
	}
}
