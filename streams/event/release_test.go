package event_test

import (
	"strings"

	"github.com/trunkline-sms/trunkline/streams/event"
)

func init() {
	add(&event.Published{Code: 5, Version: "1.2.0", Package: "org.example.gateway", Notes: "- Bug fixes\n- Performance improvements",
		MinCode: 3, Size: 15728640, SHA256: strings.Repeat("ab", 32), Object: "BzjKLpJyVQVSDHs2nmIcDt", At: at})
	add(&event.Activated{Code: 5, At: at})
	add(&event.Withdrawn{Code: 5, At: at})
	add(&event.Downloaded{Code: 5, Count: 17})
}
