"""The page at `/`: a chat, two settings racing on one prompt, and live plots of what the engine does.

NiceGUI builds it and serves its own assets, so it works without internet. Text of the model is only ever
shown as text, never as markup.
"""
