package netstack

import "testing"

func TestEndedIsToldOfEachConnection(t *testing.T) {
	told := 0
	s := New(Config{Ended: func() { told++ }})
	defer s.Close()
	for _, proto := range []string{"tcp", "udp", "tcp"} {
		s.flows.end(s.flows.begin(t.Context(), target{proto: proto}))
	}
	if told != 3 {
		t.Errorf("the ends of %d connections were told, want 3", told)
	}
}
