// Texts that several passes go on writing, watched for an end that stands in them earlier.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace pelton {

struct WatchedText {
    std::int64_t row;  // that finds its next tokens
    std::vector<std::int32_t> tokens;
};

struct WatchedTexts {
    std::vector<WatchedText> texts;
    std::int64_t repeated = 0;  // tokens of an end

    // What a pass found in each row. Whether the last tokens of a text now stand among those before its last.
    bool repeat_after(const std::vector<std::int32_t>& found) {
        bool any = false;
        for (WatchedText& text : texts) {
            std::vector<std::int32_t>& tokens = text.tokens;
            tokens.push_back(found[static_cast<std::size_t>(text.row)]);
            if (static_cast<std::int64_t>(tokens.size()) <= repeated) continue;
            const auto last = tokens.end() - 1;
            any = any || std::search(tokens.begin(), last, tokens.end() - repeated, tokens.end()) != last;
        }
        return any;
    }
};

}  // namespace pelton
