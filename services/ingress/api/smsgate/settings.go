package smsgate

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/trunkline-sms/trunkline/pkg/httpx"
)

// settings are the settings of phones, by section and key. A nil section or value is to be removed.
type settings map[string]map[string]any

// rule says which values a setting may have.
type rule struct {
	fits func(any) bool
	must string
}

// known are all settings that can be set.
var known = map[string]map[string]rule{
	"messages": {
		"send_interval_min":  count,
		"send_interval_max":  count,
		"limit_period":       oneOf("Disabled", "PerMinute", "Per30Minutes", "PerHour", "PerDay"),
		"limit_value":        count,
		"sim_selection_mode": oneOf("OSDefault", "RoundRobin", "Random"),
		"log_lifetime_days":  count,
		"processing_order":   oneOf("LIFO", "FIFO"),
		"work_hours_enabled": toggle,
		"work_hours_start":   clock,
		"work_hours_end":     clock,
	},
	"ping":       {"interval_seconds": count},
	"logs":       {"lifetime_days": count},
	"webhooks":   {"internet_required": toggle, "retry_count": count, "signing_key": empty},
	"gateway":    {"notification_channel": oneOf("AUTO", "SSE_ONLY"), "cloud_url": empty, "private_token": empty},
	"encryption": {"passphrase": empty},
	"receiver":   {"content_provider_enabled": toggle},
}

var hours = regexp.MustCompile(`^([01][0-9]|2[0-3]):[0-5][0-9]$`)

var (
	count = rule{func(v any) bool {
		n, ok := v.(json.Number)
		i, err := strconv.ParseInt(n.String(), 10, 64)
		// Limit: a number in the settings is at most 2,147,483,647, where the app's numbers end. Beyond it: 400.
		// Used up by: one request. Hurts: that request alone. Test: TestParseSettings.
		return ok && err == nil && i >= 1 && i <= math.MaxInt32 // the app's numbers end there
	}, "a number from 1 to 2147483647"}
	toggle = rule{func(v any) bool { _, ok := v.(bool); return ok }, "true or false"}
	clock  = rule{func(v any) bool { text, ok := v.(string); return ok && hours.MatchString(text) }, "a time as HH:MM"}
	empty  = rule{func(v any) bool { return v == "" }, "empty: it is the phone's own"}
)

func oneOf(words ...string) rule {
	return rule{func(v any) bool {
		text, ok := v.(string)
		return ok && slices.Contains(words, text)
	}, "one of " + strings.Join(words, ", ")}
}

// plain is a name without the differences between its spellings: some clients write intervalSeconds.
func plain(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "")) }

// spelled finds the value of a name in any spelling. Of several, our own spelling counts, and else the first one in the
// alphabet.
func spelled[V any](in map[string]V, name string) (V, bool) {
	if v, ok := in[name]; ok {
		return v, true
	}
	for _, other := range slices.Sorted(maps.Keys(in)) {
		if plain(other) == plain(name) {
			return in[other], true
		}
	}
	var none V
	return none, false
}

// parseSettings reads the settings of a body: known ones, in our spelling, and those to remove.
func parseSettings(body []byte) (settings, error) {
	var sections map[string]json.RawMessage
	if err := decode(body, &sections); err != nil {
		return nil, err
	}
	given := settings{}
	for _, section := range slices.Sorted(maps.Keys(known)) {
		raw, ok := spelled(sections, section)
		if !ok {
			continue
		}
		values, err := object(raw)
		if err != nil {
			return nil, invalid(section + " must be an object")
		}
		if values == nil {
			given[section] = nil
			continue
		}
		given[section] = map[string]any{}
		for _, key := range slices.Sorted(maps.Keys(known[section])) {
			rule := known[section][key]
			v, ok := spelled(values, key)
			switch {
			case !ok:
			case v != nil && !rule.fits(v):
				return nil, invalid(section + "." + key + " must be " + rule.must)
			case v != "": // what must be empty is not kept
				given[section][key] = v
			}
		}
	}
	return given, nil
}

// object reads one, with its numbers as they are written. It is nil for null.
func object(raw []byte) (values map[string]any, err error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	err = d.Decode(&values)
	return values, err
}

// readSettings reads what is stored.
func readSettings(stored json.RawMessage) (settings, error) {
	if stored == nil {
		return settings{}, nil
	}
	d := json.NewDecoder(bytes.NewReader(stored))
	d.UseNumber()
	var s settings
	if d.Decode(&s) != nil { // the decoder's text may quote the settings
		return nil, errors.New("read the stored settings: they are not as they were written")
	}
	return s, nil
}

func (s settings) write() json.RawMessage { return httpx.JSON(s) }

// replace lets the given settings replace all stored ones.
func replace(_, given settings) settings { return merge(settings{}, given) }

// merge merges the given settings into the stored ones, as RFC 7396 says.
func merge(stand, given settings) settings {
	merged := settings{}
	for section, values := range stand {
		if values != nil {
			merged[section] = maps.Clone(values)
		}
	}
	for section, values := range given {
		if values == nil {
			delete(merged, section)
			continue
		}
		if merged[section] == nil {
			merged[section] = map[string]any{}
		}
		for key, v := range values {
			if v == nil {
				delete(merged[section], key)
			} else {
				merged[section][key] = v
			}
		}
	}
	return merged
}
